"""Adapters that can be served: one row a version, with all that it came from."""

import msgspec

from projections.projection import Projection
from schemas.adapters import AdapterJudged, AdapterReady, Evaluation
from schemas.envelope import Event
from schemas.training import OffsetRange


class Adapter(msgspec.Struct, frozen=True, kw_only=True):
    """Never changes once it is ready: the first event of a version stands, and its first verdict."""

    company: str
    adapter: str
    """company/role"""
    version: int
    run: str = ""
    sha256: str = ""
    uri: str = ""
    method: str = ""
    rank: int = 0
    alpha: float = 0.0
    base_model: str = ""
    base_sha256: str = ""
    manifest: str = ""
    ranges: tuple[OffsetRange, ...] = ()
    seed: int = 0
    identity: str = "{}"
    evaluation: Evaluation | None = None
    ready_at: int = 0
    event: str = ""
    """Id of the event that said so; empty: not ready yet, or never."""
    promoted: bool = False
    """By the gate. What was decided by hand since stands in `rollouts`."""
    verdict: str = ""
    """What the gate's decision was, in a word; empty: it was never judged."""
    verdict_detail: str = ""
    against: int | None = None
    """The version that answered until then; None: the base model."""
    figures: str = "{}"
    """What the verdict stands on, as JSON text."""
    judged_at: int = 0


def key(event: Event) -> str | None:
    """An adapter that is named into another company's rows belongs nowhere."""
    if not isinstance(event, AdapterJudged | AdapterReady) or not event.adapter.startswith(f"{event.company}/"):
        return None
    return f"{event.adapter}/{event.adapter_version}"


def initial(row: str) -> Adapter:
    adapter, _, version = row.rpartition("/")
    return Adapter(company=adapter.partition("/")[0], adapter=adapter, version=int(version))


def fold(state: Adapter, event: Event) -> Adapter:
    """The verdict is said first; the row is the same whichever comes first."""
    if isinstance(event, AdapterJudged):
        return state if state.verdict else _judged(state, event)
    assert isinstance(event, AdapterReady)
    return state if state.event else _ready(state, event)


def _judged(state: Adapter, event: AdapterJudged) -> Adapter:
    if state.event and state.run != event.run:
        return state  # a version of another's has the number: it was measured by nobody
    return msgspec.structs.replace(
        state,
        run=event.run,
        verdict=event.reason,
        verdict_detail=event.detail,
        against=event.against,
        figures=event.figures,
        judged_at=event.time,
    )


def _ready(state: Adapter, event: AdapterReady) -> Adapter:
    if state.run not in ("", event.run):
        state = initial(f"{state.adapter}/{state.version}")  # what was measured is of another's weights
    return msgspec.structs.replace(
        state,
        run=event.run,
        sha256=event.sha256,
        uri=event.uri,
        method=event.method,
        rank=event.rank,
        alpha=event.alpha,
        base_model=event.base_model,
        base_sha256=event.base_sha256,
        manifest=event.manifest,
        ranges=event.ranges,
        seed=event.seed,
        identity=event.identity,
        evaluation=event.evaluation,
        promoted=event.promoted,
        ready_at=event.time,
        event=event.id,
    )


LORA_ADAPTERS = Projection(
    name="lora_adapters", version=2, topics=("adapter-ready",), state=Adapter, key=key, initial=initial, fold=fold
)
