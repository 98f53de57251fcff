"""/company-automation: jobs are given out, looked at and taken back."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Query, Response
from pydantic import Field

from processors import gate
from processors.parameters import canonical
from projections.jobs import ENDED, JOBS
from rillfold.api.access import Asker, Serving, StillKnown, company_of
from rillfold.api.automation import Placed, publish
from rillfold.event_log import first
from rillfold.http.errors import ApiError
from rillfold.http.forms import Strict
from rillfold.http.strict_json import StrictRoute
from rillfold.wiring import TOOLS_SECONDS, Services
from schemas.errors import RillfoldError
from schemas.jobs import JobRequested, JobWithdrawn
from schemas.topics import TOPIC_OF
from schemas.words import REGISTERED
from streams.log.port import extents

router = APIRouter(prefix="/company-automation", tags=["company automation"], route_class=StrictRoute)
WAIT_SECONDS = 300.0
LOOK_SECONDS = 0.1
FRESH_SECONDS = 3.0
"""So long a job may be given out before its row is there."""
Seconds = Annotated[float, Query(ge=0, le=WAIT_SECONDS, description="Seconds to wait for the end of the job.")]
Row = dict[str, Any]


class Task(Strict):
    task: str = Field(min_length=1, max_length=16_000)
    data: Any = None


class ProcessBody(Strict):
    company_id: str | None = None
    data: Task
    use_adapter: bool = True
    role: str = Field("default", pattern=REGISTERED)
    first_step: Literal["free", "call"] = "free"
    """call: the first answer is a call of one of the tools, and can be nothing else."""
    job: str | None = Field(None, pattern=r"^[A-Za-z0-9_-]{1,64}$")
    """Give your own id if you may have to send this again: a job is done once."""
    session: str | None = Field(None, pattern=r"^[A-Za-z0-9_.:-]{1,64}$")
    """What the job belongs to; `GET /projections/sessions` shows the jobs of each."""


class JobBody(Strict):
    company_id: str
    job: str
    status: str
    """running, completed, failed or withdrawn."""
    answer: str | None = None
    reason: str | None = None
    detail: str = ""
    steps: list[dict[str, Any]] = Field(default=[])
    requested: Placed | None = None
    """Where its request stands in the log, for whoever just sent it."""
    withdrawn: Placed | None = None
    """Where it stands that the job is taken back, for whoever just said so."""


class CancelBody(Strict):
    company_id: str | None = None
    reason: str = Field("", max_length=1_000)
    """Stands in the log."""


class UnknownJob(ApiError):
    """Absent, or another company's: nobody can tell which."""

    def __init__(self, job: str) -> None:
        told = f"No job {job[:100]!r} is here, or it is not yours. One given out this moment: ask with `wait`."
        super().__init__(404, "not_found", told)


class JobEnded(ApiError):
    """It has an end, which stands."""

    def __init__(self, job: str, status: str) -> None:
        told = f"Job {job[:100]!r} has ended already, as {status}: nothing is taken back, and nothing was changed."
        super().__init__(409, "job_ended", told)


@router.post("/process", status_code=202, responses={200: {"model": JobBody, "description": "The job has ended."}})
async def process(
    given: ProcessBody,
    asker: Asker,
    serving: Serving,
    response: Response,
    known: StillKnown,
    wait: Seconds = 0,
) -> JobBody:
    """Start a job. 202 while it runs; with `wait`, 200 and its end."""
    company = company_of(asker, given.company_id)
    await serving.tools.catch_up_within(TOOLS_SECONDS)
    fields = first(company)
    async with serving.checks.turn(company):
        tools = await asyncio.to_thread(gate.snapshot, tuple(serving.tools.offered(company)))
    wish = JobRequested(
        **fields,
        job=given.job or fields["id"],
        task=given.data.task,
        data="{}" if given.data.data is None else canonical(given.data.data),
        use_adapter=given.use_adapter,
        role=given.role,
        tools=tools,
        session=given.session,
        first_step=given.first_step,
    )
    (requested,) = await publish(serving, [wish])
    running = JobBody(company_id=company, job=wish.job, status="running", requested=requested)
    row = await _row(serving, company, wish.job, wait, known) if wait else None
    if row is None or row["status"] not in ENDED:
        return running
    response.status_code = 200
    return _told(row, requested=requested)


@router.get("/jobs/{job}")
async def job(
    job: str, asker: Asker, serving: Serving, known: StillKnown, company_id: str | None = None, wait: Seconds = 0
) -> JobBody:
    """How a job stands; with `wait`, as soon as it ends."""
    row = await _row(serving, company_of(asker, company_id), job, wait, known)
    if row is None:
        raise UnknownJob(job)
    return _told(row)


@router.post(
    "/jobs/{job}/cancel", status_code=202, responses={200: {"model": JobBody, "description": "It is taken back."}}
)
async def cancel(
    job: str,
    given: CancelBody,
    asker: Asker,
    serving: Serving,
    response: Response,
    known: StillKnown,
    wait: Seconds = 0,
) -> JobBody:
    """Take a job back: it asks and calls nothing more. 202 until that is folded; with `wait`, 200 as soon as it is.

    What is under way may still come back, and stays in the log. 409 where the job has ended in another way.
    """
    company, placed, until = company_of(asker, given.company_id), None, time.monotonic() + wait
    row = await _row(serving, company, job, wait, known, _is_given_out)
    if row is None or not _is_given_out(row):
        raise UnknownJob(job)
    if row["status"] not in ENDED:
        story = {**first(company), "correlation": row["correlation"]}
        (placed,) = await publish(serving, [JobWithdrawn(**story, job=job, reason=given.reason)])
        row = await _row(serving, company, job, until - time.monotonic(), known) or row
    if row["status"] in ENDED:
        if row["status"] != "withdrawn":
            raise JobEnded(job, row["status"])
        response.status_code = 200
    return _told(row, withdrawn=placed)


def _told(row: Row, requested: Placed | None = None, withdrawn: Placed | None = None) -> JobBody:
    same = {name: row[name] for name in ("job", "status", "answer", "reason", "detail")}
    return JobBody(company_id=row["company"], steps=row["history"], requested=requested, withdrawn=withdrawn, **same)


def _has_ended(row: Row) -> bool:
    return bool(row["status"] in ENDED)


def _is_given_out(row: Row) -> bool:
    """A reply of nobody's asking makes a row, too."""
    return bool(row["status"] != "unknown")


async def _row(
    serving: Services,
    company: str,
    job: str,
    seconds: float,
    known: StillKnown,
    true: Callable[[Row], bool] = _has_ended,
) -> Row | None:
    """The job's row: as soon as it is so, or as it stands when the time is over. For one that nobody has given out
    there is nothing to wait, once the rows know all requests that the log had after a moment's grace."""
    begun, ends, all_known = time.monotonic(), None, False
    while True:
        row = await serving.reads.row(JOBS, f"{company}/{job}")
        known()
        waited, given_out = time.monotonic() - begun, row is not None and _is_given_out(row.value)
        if (row is not None and true(row.value)) or waited >= seconds or (all_known and not given_out):
            return row.value if row else None
        if not given_out and waited >= FRESH_SECONDS:
            ends = ends or await _ends(serving)
            # What they know by now is in the next look.
            all_known = ends is not None and await _has_folded(serving, company, ends)
        await asyncio.sleep(LOOK_SECONDS)


async def _ends(serving: Services) -> Mapping[int, int] | None:
    """Of the partitions that hold requests; None: the log does not say, and the answer waits for the rows alone."""
    with suppress(RillfoldError):
        held = await extents(serving.log, serving.names.wire(TOPIC_OF[JobRequested].name))
        return {partition: each.end for partition, each in held.items() if each.end > each.first}
    return None


async def _has_folded(serving: Services, company: str, ends: Mapping[int, int]) -> bool:
    positions = await serving.reads.positions(JOBS, company)
    there = positions.get(serving.names.wire(TOPIC_OF[JobRequested].name), {})
    return all(there.get(partition, 0) >= end for partition, end in ends.items())
