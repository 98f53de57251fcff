"""What a training worker says about a run: with the same ids, however often the run is tried."""

import re
from math import isfinite

from processors.dataset.turns import Manifest
from processors.training.admit import NotAdmitted, adapter_name
from processors.training.promotion import Verdict
from processors.training.settings import TrainSettings
from projections.training_runs import Run
from schemas import training
from schemas.adapters import AdapterJudged, AdapterReady, Evaluation
from schemas.envelope import Event, caused_by
from schemas.words import shortened

DETAIL = 2_000
# In quotes as an OSError has it, or bare. No address of a web page, no topic/partition/offset, no company/role.
_PATH = re.compile(r"""'/[^'\n]*'|"/[^"\n]*"|(?<![\w.:/])/[^\s:;,'"()]+""")


def refused(
    request: Event, why: NotAdmitted, generation: int, now: int, read_seconds: float = 0.0
) -> training.TrainingRefused:
    """Of a request, here and where a run is claimed or fails, nothing is needed but its envelope."""
    return training.TrainingRefused(
        **caused_by(request, "refused", now),
        run=request.id,
        reason=why.reason,
        detail=shortened(why.detail, DETAIL),
        generation=generation,
        read_seconds=read_seconds,
    )


def accepted(
    request: training.TrainingRequested, manifest: Manifest, worker: str, generation: int, now: int
) -> training.TrainingAccepted:
    run = Run(
        company=request.company,
        run=request.id,
        ranges=manifest.ranges,
        manifest=manifest.sha256,
        examples=manifest.trained,
    )
    return claimed(request, run, worker, generation, now)


def claimed(request: Event, run: Run, worker: str, generation: int, now: int) -> training.TrainingAccepted:
    """`run`: as it is accepted now, or was by another worker, or by this one before it was started again."""
    return training.TrainingAccepted(
        **caused_by(request, f"accepted/{generation}", now),
        run=request.id,
        worker=worker,
        generation=generation,
        ranges=run.ranges,
        manifest=run.manifest,
        examples=run.examples,
    )


def progressed(
    request: training.TrainingRequested, phase: str, step: int, steps: int, generation: int, now: int,
    **figures: float | None,
) -> training.TrainingProgressed:  # fmt: skip
    """A run that diverges still reports its steps."""
    fields = caused_by(request, f"{phase}/{step}", now)
    fields |= {name: figure if figure is not None and isfinite(figure) else None for name, figure in figures.items()}
    return training.TrainingProgressed(
        **fields, run=request.id, phase=phase, step=step, steps=steps, generation=generation
    )


def judged(
    request: training.TrainingRequested, adapter_version: int, against: int | None, verdict: Verdict, now: int
) -> AdapterJudged:
    return AdapterJudged(
        **caused_by(request, "judged", now),
        adapter=adapter_name(request),
        adapter_version=adapter_version,
        run=request.id,
        promoted=verdict.promoted,
        against=against,
        reason=verdict.reason,
        detail=shortened(verdict.detail, DETAIL),
        figures=verdict.figures,
    )


def ready(
    request: training.TrainingRequested,
    settings: TrainSettings,
    manifest: Manifest,
    *,
    adapter_version: int,
    sha256: str,
    uri: str,
    base_model: str,
    base_sha256: str,
    identity: str,
    evaluation: Evaluation | None,
    promoted: bool,
    now: int,
) -> AdapterReady:
    return AdapterReady(
        **caused_by(request, "ready", now),
        adapter=adapter_name(request),
        adapter_version=adapter_version,
        run=request.id,
        sha256=sha256,
        uri=uri,
        method=request.method,
        rank=settings.rank,
        alpha=settings.alpha,
        base_model=base_model,
        base_sha256=base_sha256,
        manifest=manifest.sha256,
        ranges=manifest.ranges,
        seed=settings.seed,
        identity=identity,
        evaluation=evaluation,
        promoted=promoted,
    )


def completed(
    request: training.TrainingRequested, sha256: str, generation: int, now: int
) -> training.TrainingCompleted:
    return training.TrainingCompleted(
        **caused_by(request, "completed", now),
        run=request.id,
        adapter=adapter_name(request),
        sha256=sha256,
        seconds=max(0, now - request.time) / 1e6,
        generation=generation,
    )


def failed(request: Event, reason: str, detail: str, generation: int, now: int) -> training.TrainingFailed:
    """Where something lies on this machine is the operator's business alone."""
    return training.TrainingFailed(
        **caused_by(request, "failed", now),
        run=request.id,
        reason=reason,
        detail=shortened(_PATH.sub("(a path)", detail), DETAIL),
        generation=generation,
    )
