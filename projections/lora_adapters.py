"""Adapters that can be served: one row a version, with all that it came from."""

import msgspec

from projections.projection import Projection
from schemas.adapters import AdapterReady, Evaluation
from schemas.envelope import Event
from schemas.training import OffsetRange


class Adapter(msgspec.Struct, frozen=True, kw_only=True):
    """Never changes once it is ready: the first event of a version stands."""

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
    """Id of the event that said so."""


def key(event: Event) -> str | None:
    """An adapter that is named into another company's rows belongs nowhere."""
    if not isinstance(event, AdapterReady) or not event.adapter.startswith(f"{event.company}/"):
        return None
    return f"{event.adapter}/{event.adapter_version}"


def initial(row: str) -> Adapter:
    adapter, _, version = row.rpartition("/")
    return Adapter(company=adapter.partition("/")[0], adapter=adapter, version=int(version))


def fold(state: Adapter, event: Event) -> Adapter:
    assert isinstance(event, AdapterReady)
    if state.event:
        return state
    return Adapter(
        company=state.company,
        adapter=state.adapter,
        version=state.version,
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
        ready_at=event.time,
        event=event.id,
    )


LORA_ADAPTERS = Projection(
    name="lora_adapters", version=1, topics=("adapter-ready",), state=Adapter, key=key, initial=initial, fold=fold
)
