"""What an event of a run's life adds to what a tracker of experiments knows of the run. Pure: a fold, and a note."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from itertools import islice
from math import isfinite
from typing import Any, Literal, NamedTuple

import msgspec

from processors.training.settings import TrainSettings, of_method
from projections.rollouts import ROLLOUTS
from projections.training_runs import ENDED, TRAINING_RUNS, Outcome, Run
from schemas.adapters import AdapterJudged, AdapterReady, RolloutDecided
from schemas.envelope import Event
from schemas.training import TrainingAccepted, TrainingCompleted, TrainingProgressed, TrainingWithdrawn
from schemas.words import shortened

WITHDRAWN = "withdrawn"
FIGURES, DEEP, LONG = 500, 6, 200
"""Of one verdict; so deep and under names so long they are found."""
WAITING, SETTINGS = 10_000, 8_192
"""Wishes of one company that nobody has accepted, and bytes of what each asks for, that are known: as many as may wait
at the workers. Who wishes for more has the oldest of them told of without it."""

Ending = Literal["finished", "failed", "killed"]


class FigureAt(NamedTuple):
    """A figure, at a step of the run and a time in milliseconds."""

    name: str
    value: float
    step: int
    at: int


class RunNote(msgspec.Struct, frozen=True, kw_only=True):
    """What is known of a run from now on. Noted twice, it is noted once."""

    company: str
    run: str
    role: str
    begun: int
    """Milliseconds since the Unix epoch, as all times here."""
    name: str = ""
    """What people call it by now: an adapter's name, once it has one."""
    params: Mapping[str, str] = {}
    tags: Mapping[str, str] = {}
    figures: tuple[FigureAt, ...] = ()
    papers: Mapping[str, str] = {}
    """JSON, by the name of its file."""
    dataset: str = ""
    """The hash of its manifest."""
    ended: tuple[Ending, int] | None = None


def together(first: RunNote, then: RunNote) -> RunNote:
    """Two of one run as one."""
    return msgspec.structs.replace(
        then,
        name=then.name or first.name,
        params={**first.params, **then.params},
        tags={**first.tags, **then.tags},
        figures=(*first.figures, *then.figures),
        papers={**first.papers, **then.papers},
        dataset=then.dataset or first.dataset,
        ended=then.ended or first.ended,
    )


class TrackedRun(Run, frozen=True, kw_only=True):
    told: int = -1
    """The highest step with figures: a run that is taken up again says some of them again."""


def _fold(state: Run, event: Event) -> Run:
    run = TRAINING_RUNS.fold(state, event)
    if run is state or not isinstance(run, TrackedRun) or not isinstance(event, TrainingProgressed):
        return run
    return msgspec.structs.replace(run, told=max(run.told, event.step)) if _measured(event) else run


def _initial(row: str) -> Run:
    company, _, run = row.partition("/")
    return TrackedRun(company=company, run=run)


TRACKED_RUNS = replace(TRAINING_RUNS, state=TrackedRun, initial=_initial, fold=_fold)


class Tracking:
    """Every run, as far as the log was read. It is told of from the moment on that a worker has accepted it.

    Nobody fills this memory by asking: what ends without that is forgotten, and what waits for it is bounded.
    """

    def __init__(self) -> None:
        self._runs: dict[str, Run] = {}
        self._waiting: dict[str, dict[str, None]] = {}
        """By company the rows of wishes, the oldest first."""
        self._made: dict[tuple[str, int], str] = {}
        """Who made a version of an adapter: the row of its run."""

    def take(self, event: Event) -> RunNote | None:
        """None: it changes nothing of a run that is told of."""
        match event:
            case AdapterJudged():
                return self._added(self._row(event), _judged(event))
            case AdapterReady():
                return self._ready(event)
            case RolloutDecided() if ROLLOUTS.key(event) is not None:  # else it names another company's
                told = {"rollout": f"{event.percent} %: {event.reason}"}
                return self._added(self._made.get((event.adapter, event.adapter_version)), {"tags": told})
        return self._lived(event)

    def _row(self, event: AdapterJudged | AdapterReady) -> str | None:
        """A verdict on another company's adapter is none."""
        ours = event.adapter.startswith(f"{event.company}/")
        return f"{event.company}/{event.run}" if ours else None

    def _ready(self, event: AdapterReady) -> RunNote | None:
        row = self._row(event)
        if (note := self._added(row, _ready(event))) is not None and row is not None:
            self._made.setdefault((event.adapter, event.adapter_version), row)
        return note

    def _lived(self, event: Event) -> RunNote | None:
        if (row := TRACKED_RUNS.key(event)) is None:
            return None
        before = self._runs.get(row) or TRACKED_RUNS.initial(row)
        after = TRACKED_RUNS.fold(before, event)
        if after is before:
            return None
        self._keep(row, after)
        return self._added(row, _lived(before, after, event))

    def _keep(self, row: str, run: Run) -> None:
        self._runs[row] = _kept(run)
        waiting = self._waiting.setdefault(run.company, {})
        if not run.accepted_at and run.status not in ENDED:
            waiting[row] = None
            if len(waiting) > WAITING:
                self._forget(waiting, next(iter(waiting)))
        elif run.accepted_at:
            waiting.pop(row, None)
        else:
            self._forget(waiting, row)
        if not waiting:
            del self._waiting[run.company]

    def _forget(self, waiting: dict[str, None], row: str) -> None:
        waiting.pop(row, None)
        del self._runs[row]

    def _added(self, row: str | None, told: Mapping[str, Any]) -> RunNote | None:
        run = self._runs.get(row or "")
        if run is None or not run.accepted_at:
            return None
        begun = _milliseconds(run.accepted_at)
        return _sound(RunNote(company=run.company, run=run.run, role=run.role, begun=begun, **told))


def _sound(note: RunNote) -> RunNote:
    """A zero byte is text to us, and to no database of a tracker."""
    params, tags = ({k: v.replace("\0", "\ufffd") for k, v in each.items()} for each in (note.params, note.tags))
    return msgspec.structs.replace(note, params=params, tags=tags)


def _kept(run: Run) -> Run:
    """Kept for as long as the process lives: without the words that are said once, and were or will be."""
    waits = not run.accepted_at and run.status not in ENDED
    settings, withdrawn = shortened(run.settings, SETTINGS) if waits else "", run.withdrawn and "yes"
    return msgspec.structs.replace(run, settings=settings, withdrawn=withdrawn, ranges=(), detail="")


def _lived(before: Run, after: Run, event: Event) -> dict[str, Any]:
    match event:
        case TrainingAccepted():
            tags = {"worker": event.worker, "generation": str(event.generation), "manifest": event.manifest}
            return {"tags": tags} | ({} if before.accepted_at else _begun(after))
        case TrainingProgressed():
            told = getattr(before, "told", -1)
            figures = _measured(event) if event.step > told else ()
            return {"tags": {"phase": f"{event.phase} {event.step}/{event.steps}"}, "figures": figures}
        case TrainingWithdrawn():
            return {"tags": {"withdrawn": event.reason or "yes"}}
        case _ if isinstance(event, Outcome):
            return _ended(after, event)
    return {}


def _begun(run: Run) -> dict[str, Any]:
    """Said once: a tracker takes no other value of them afterwards."""
    params = {"role": run.role, "base_model": run.base_model, "method": run.method, "examples": str(run.examples)}
    ranges = msgspec.json.encode(run.ranges).decode()
    return {"params": _settings(run) | params, "papers": {"ranges.json": ranges}, "dataset": run.manifest}


def _settings(run: Run) -> dict[str, str]:
    """All that the run goes by, where this release knows it; else what was asked for."""
    try:
        given = msgspec.json.decode(run.settings, type=dict[str, Any])
        known = of_method(run.method, msgspec.convert(given, TrainSettings), given)
    except (msgspec.MsgspecError, RecursionError):
        return {"settings": run.settings}
    return {name: _spelled(value) for name, value in msgspec.to_builtins(known).items()}


def _spelled(value: Any) -> str:
    return value if isinstance(value, str) else msgspec.json.encode(value).decode()


def _measured(event: TrainingProgressed) -> tuple[FigureAt, ...]:
    told = (
        ("loss", event.loss),
        ("held_out_loss", event.held_out_loss),
        ("tokens_per_second", event.tokens_per_second),
    )
    at = _milliseconds(event.time)
    return tuple(FigureAt(name, value, event.step, at) for name, value in told if value is not None and isfinite(value))


def _ended(run: Run, event: Outcome) -> dict[str, Any]:
    at = _milliseconds(event.time)
    worked = FigureAt("worked_seconds", run.worked / 1e6, 0, at)
    if isinstance(event, TrainingCompleted):
        tags = {"sha256": event.sha256}
        return {"tags": tags, "figures": (worked,), "ended": ("finished", at)}
    ending: Ending = "killed" if event.reason == WITHDRAWN else "failed"
    return {"tags": {"reason": event.reason, "detail": event.detail}, "figures": (worked,), "ended": (ending, at)}


def _judged(event: AdapterJudged) -> dict[str, Any]:
    at = _milliseconds(event.time)
    against = "the base model" if event.against is None else str(event.against)
    tags = {"promoted": _yes(event.promoted), "verdict": event.reason, "detail": event.detail, "against": against}
    figures = tuple(FigureAt(name, value, 0, at) for name, value in islice(_figures(event.figures), FIGURES))
    return {"tags": tags, "figures": figures, "papers": {"verdict.json": event.figures}}


def _ready(event: AdapterReady) -> dict[str, Any]:
    at, name = _milliseconds(event.time), f"{event.adapter}@{event.adapter_version}"
    found = event.evaluation
    told = {"examples": found.examples, "before": found.before, "after": found.after} if found else {}
    return {
        "name": name,
        "tags": {
            "adapter": name,
            "sha256": event.sha256,
            "uri": event.uri,
            "base_sha256": event.base_sha256,
            "promoted": _yes(event.promoted),
        },
        "figures": tuple(FigureAt(f"held_out.{name}", value, 0, at) for name, value in told.items() if isfinite(value)),
        "papers": {"identity.json": event.identity},
    }


def _figures(text: str) -> Iterator[tuple[str, float]]:
    try:
        yield from _numbers("gate", msgspec.json.decode(text), DEEP)
    except (msgspec.DecodeError, RecursionError):
        return


def _numbers(name: str, value: Any, deep: int) -> Iterator[tuple[str, float]]:
    """A name holds its whole way: neither is long."""
    if isinstance(value, dict) and deep and len(name) <= LONG:
        for part, below in value.items():
            yield from _numbers(f"{name}.{part}", below, deep - 1)
    elif isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < 1e300:
        yield name, float(value)


def _milliseconds(time: int) -> int:
    return max(0, time) // 1_000


def _yes(value: bool) -> str:
    return "yes" if value else "no"
