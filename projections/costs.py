"""Tokens by company, adapter and model. What they cost is a price table's matter, applied when it is asked."""

import msgspec

from projections.projection import Projection
from schemas.envelope import Event
from schemas.inference import InferenceCompleted

# A repeated answer is recognised among so many before it, per row. Further apart, it counts twice.
WINDOW = 16
BASE = "base"


class Cost(msgspec.Struct, frozen=True, kw_only=True):
    """What one adapter of a company, or the base model for it, has read and written on one model."""

    company: str
    adapter: str = BASE
    """company/role, or `base`."""
    model: str = ""
    requests: int = 0
    prompt_tokens: int = 0
    cached_tokens: int = 0
    """Of the prompt tokens."""
    completion_tokens: int = 0
    last_at: int = 0
    recent: tuple[str, ...] = ()
    """Requests answered last."""


def key(event: Event) -> str | None:
    if not isinstance(event, InferenceCompleted):
        return None
    return f"{event.company}/{event.adapter or BASE}/{event.model}"


def initial(row: str) -> Cost:
    return Cost(company=row.partition("/")[0])


def fold(state: Cost, event: Event) -> Cost:
    assert isinstance(event, InferenceCompleted)
    if event.request in state.recent:
        return state
    return Cost(
        company=state.company,
        adapter=event.adapter or BASE,
        model=event.model,
        requests=state.requests + 1,
        prompt_tokens=state.prompt_tokens + event.prompt_tokens,
        cached_tokens=state.cached_tokens + event.cached_tokens,
        completion_tokens=state.completion_tokens + event.completion_tokens,
        last_at=max(state.last_at, event.time),
        recent=(*state.recent[1 - WINDOW :], event.request),
    )


def merge(a: Cost, b: Cost) -> Cost:
    """Answers are spread over partitions by job; each partition counts its own."""
    return Cost(
        company=a.company,
        adapter=a.adapter,
        model=a.model,
        requests=a.requests + b.requests,
        prompt_tokens=a.prompt_tokens + b.prompt_tokens,
        cached_tokens=a.cached_tokens + b.cached_tokens,
        completion_tokens=a.completion_tokens + b.completion_tokens,
        last_at=max(a.last_at, b.last_at),
    )


COSTS = Projection(
    name="costs",
    version=1,
    topics=("inference-result",),
    state=Cost,
    key=key,
    initial=initial,
    fold=fold,
    merge=merge,
    together={
        "requests": "sum",
        "prompt_tokens": "sum",
        "cached_tokens": "sum",
        "completion_tokens": "sum",
        "last_at": "max",
    },
)
