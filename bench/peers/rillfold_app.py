"""One work twice, by the worker as in production: a projection as ours are written, and one by `@app.projection`."""

import sys

from bench.peers.meter import job
from bench.peers.rillfold_fold import Count, run
from projections.projection import Projection
from rillfold import App
from schemas.company import AgentOutputIngested, RecordIngested
from schemas.envelope import Event

COUNTED = (RecordIngested, AgentOutputIngested)


def _key(event: Event) -> str | None:
    return f"{event.company}/{event.entity}" if isinstance(event, COUNTED) else None


def _one_more(state: Count, _event: Event) -> Count:
    return Count(state.n + 1)


OURS = Projection(
    name="bench_count",
    version=1,
    topics=("company-data",),
    state=Count,
    key=_key,
    initial=lambda _key: Count(),
    fold=_one_more,
)

app = App("bench")


@app.projection("bench_count", key=lambda event: event.entity)
def users(state: Count, _event: RecordIngested | AgentOutputIngested) -> Count:
    """The same count, as a user says it."""
    return Count(state.n + 1)


if __name__ == "__main__":
    run(job(), [users if "--app" in sys.argv else OURS])
