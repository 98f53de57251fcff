"""A user's projection in the test kit: folded, refused, merged and held against a fresh fold, as ours are."""

from __future__ import annotations

import json
from typing import Any

from rillfold.testing.driver import Driver
from streams.log.port import EventLog

DAYS = '''
class Day(msgspec.Struct, frozen=True):
    company: str
    key: str
    cents: int = 0
    first: int = 0

@app.projection("days", key=lambda event: json.loads(event.data).get("day"), merge={"cents": "sum", "first": "min"})
def days(state: Day, event: RecordIngested) -> Day:
    """What came in on a day."""
    cents = json.loads(event.data)["cents"]
    if cents < 0:
        return cents
    if cents == 12:
        raise SystemExit(0)
    if cents == 13:
        object.__setattr__(state, "cents", 13)
    return Day(company=state.company, key=state.key, cents=state.cents + cents, first=event.time)
'''


def sold(entity: str, **data: Any) -> dict[str, Any]:
    return {"type": "record.ingested", "company": "acme", "entity": entity, "kind": "order", "data": json.dumps(data)}


async def test_a_row_is_the_fold_of_the_log_whatever_happens(load: Any, log: EventLog, names: Any) -> None:
    days = load(DAYS).projections["days"]
    async with Driver(log, [days], names=names, workers=2) as d:
        for n in range(20):
            await d.send(sold(f"till-{n}", day=f"day-{n % 2}", cents=10))
            if n == 7:
                await d.crash("worker-1", at="appended")
            if n == 12:
                await d.rebalance()
        await d.send(sold("till-1", cents=1_000))
        await d.settle()
        row = d.query(days, "acme/day-1")
        assert (row.company, row.key, row.cents) == ("acme", "day-1", 100)
        assert await d.digest(days) == await d.refold(days)


async def test_what_it_raises_or_returns_for_one_event_refuses_that_event(load: Any, log: Any, names: Any) -> None:
    days = load(DAYS).projections["days"]
    async with Driver(log, [days], names=names) as d:
        for data in ({"day": "a", "cents": 1}, {"day": "a"}, {"day": "a", "cents": -1}, {"day": 7, "cents": 1},
                     {"day": "a", "cents": 12}, {"day": "a", "cents": 13}, {"day": "a", "cents": 1.5},
                     {"day": "a", "cents": 2}):  # fmt: skip
            await d.send(sold("till", **data))
        await d.settle()
        assert d.query(days, "acme/a").cents == 3
        missing, another, number, ended, changed, broken = d.refused(days)
        assert "KeyError" in missing.detail
        assert "returned int, not Day" in another.detail
        assert "the key of days is int" in number.detail
        assert "wanted to end the process" in ended.detail
        assert changed.reason == "raised"
        assert "returned Day with another type than it says: Expected `int`, got `float`" in broken.detail
        assert await d.digest(days) == await d.refold(days)
