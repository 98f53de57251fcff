"""/v1/fine_tuning/jobs: a job is a training request, and everything that is told of it stands in the log."""

from collections.abc import AsyncIterator
from typing import Annotated, Any

from fastapi import APIRouter, Query

from processors.tuning.names import JOB, JOB_PREFIX
from processors.tuning.told import checkpoint_told, event_named, events_told, job_told
from processors.tuning.wishes import tuning_of
from projections.rollouts import ROLLOUTS
from projections.training_runs import ENDED, TRAINING_RUNS, Run
from rillfold.api.access import Asker, Serving, company_of
from rillfold.api.tuning import found
from rillfold.api.tuning.asked import request_of
from rillfold.api.tuning.forms import NewTuning, TuningJob, TuningPage
from rillfold.api.tuning.reading import reading
from rillfold.api.tuning.story import story_of
from rillfold.api.tuning.tuned_models import TunedModels
from rillfold.api.tuning.wrong import WrongPart
from rillfold.event_log import first
from rillfold.http.errors import NotFound
from rillfold.http.strict_json import StrictRoute
from rillfold.wiring import Services
from schemas.training import TrainingWithdrawn
from streams.log.outgoing import to_outgoing

router = APIRouter(prefix="/v1/fine_tuning/jobs", tags=["tuning"], route_class=StrictRoute)
MOST = 100
Limit = Annotated[int, Query(ge=1, le=MOST)]


@router.post("")
async def create(given: NewTuning, asker: Asker, serving: Serving, company_id: str | None = None) -> TuningJob:
    """Ask for a tuned model. What can be known at once is refused at once; the rest ends as the job's error."""
    company = company_of(asker, company_id)
    request = await request_of(serving, company, given)
    await serving.log.append([to_outgoing(request, serving.names)])
    key = f"{company}/{request.id}"
    there = await found.until(serving, TRAINING_RUNS, key, lambda run: run.status != "unknown")
    return TuningJob(
        **await _told(TunedModels(serving), there or TRAINING_RUNS.fold(TRAINING_RUNS.initial(key), request))
    )


@router.get("")
async def listed(
    asker: Asker, serving: Serving, company_id: str | None = None, after: str | None = None, limit: Limit = 20
) -> TuningPage:
    """The company's jobs, the newest first."""
    company, wanted, made = company_of(asker, company_id), list[dict[str, Any]](), TunedModels(serving)
    async with reading(serving, company):
        async for run in _jobs(serving, company, after):
            wanted.append(await _told(made, run))
            if len(wanted) > limit:
                break
    return TuningPage.of(wanted, limit)


@router.get("/{job_id}")
async def job(job_id: str, asker: Asker, serving: Serving, company_id: str | None = None) -> TuningJob:
    """How a job stands."""
    return TuningJob(**await _told(TunedModels(serving), await _run(serving, company_of(asker, company_id), job_id)))


@router.post("/{job_id}/cancel")
async def cancel(job_id: str, asker: Asker, serving: Serving, company_id: str | None = None) -> TuningJob:
    """Take the wish back. One that waits does not begin, one that trains is stopped; what is published stays."""
    company = company_of(asker, company_id)
    run = await _run(serving, company, job_id)
    if run.status in ENDED:
        told = f"The job has ended already, as {run.status}: there is nothing to cancel."
        raise WrongPart("fine_tuning_job_id", "job_ended", told)
    if run.withdrawn is None:
        event = TrainingWithdrawn(**first(company), run=run.run, reason="cancelled by whoever has the company's key")
        await serving.log.append([to_outgoing(event, serving.names)])
    key = f"{company}/{run.run}"
    there = await found.until(serving, TRAINING_RUNS, key, lambda run: run.withdrawn is not None or run.status in ENDED)
    return TuningJob(**await _told(TunedModels(serving), there or run))


@router.get("/{job_id}/events")
async def events(
    job_id: str,
    asker: Asker,
    serving: Serving,
    company_id: str | None = None,
    after: str | None = None,
    limit: Limit = 20,
) -> TuningPage:
    """What the log says of a job, the newest first."""
    company = company_of(asker, company_id)
    run = await _run(serving, company, job_id)
    story = await story_of(serving, run, limit + 1, event_named(after))
    return TuningPage.of(events_told(story, await TunedModels(serving).model(run)), limit)


@router.get("/{job_id}/checkpoints")
async def checkpoints(
    job_id: str,
    asker: Asker,
    serving: Serving,
    company_id: str | None = None,
    after: str | None = None,
    limit: Limit = 10,
) -> TuningPage:
    """The version that the job made, while it stands: one that was withdrawn answers nobody."""
    run = await _run(serving, company_of(asker, company_id), job_id)
    model = await TunedModels(serving).model(run)
    if model is None or after is not None:
        return TuningPage(data=[])
    rollout = await found.one(serving, ROLLOUTS, model.adapter)
    stands = rollout is None or not rollout.is_withdrawn(model.version)
    return TuningPage.of([checkpoint_told(run, model)] if stands else [], limit)


async def _jobs(serving: Services, company: str, after: str | None) -> AsyncIterator[Run]:
    async for run in found.those_of(serving, TRAINING_RUNS, company, JOB_PREFIX, after):
        if run.status != "unknown" and tuning_of(run.settings) is not None:
            yield run


async def _run(serving: Services, company: str, name: str) -> Run:
    """A run that was asked for in another way is no job here."""
    run = await found.one(serving, TRAINING_RUNS, f"{company}/{name}") if JOB.fullmatch(name) else None
    if run is None or run.status == "unknown" or tuning_of(run.settings) is None:
        raise NotFound
    return run


async def _told(made: TunedModels, run: Run) -> dict[str, Any]:
    tuning = tuning_of(run.settings)
    assert tuning is not None
    return job_told(run, tuning, await made.model(run))
