"""A user's rows over HTTP and in Postgres: for whom they are, merged as the application says, with their proof."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any
from uuid import uuid4

import psycopg

from rillfold.app.found import with_apps
from rillfold.embedded.state import Endpoints
from rillfold.testing.driver import Driver
from streams.log.memory import MemoryLog
from streams.read_model.postgres import PostgresSink
from streams.read_model.reads import Reads
from streams.read_model.sink import Follower
from streams.state.changelog import topic_of
from tests.api.conftest import serving

PAID = """
@app.event("z.paid")
class Paid:
    entity: str | None = None
    day: str
    cents: int

@app.projection("days", key=lambda event: event.day, merge={"cents": "sum"})
def days(state: Total, event: Paid) -> Total:
    return Total(state.cents + event.cents)
"""


async def test_rows_of_parts_are_one_for_the_company_that_they_are_of(
    release: Any, stack: Endpoints, tmp_path: Path
) -> None:
    app = release(PAID)
    app.record()
    there, log, schema, dsn = with_apps([app]), MemoryLog(), f"t{uuid4().hex[:12]}", stack.postgres_dsn
    assert dsn is not None
    (days,) = app.projections.values()
    async with (
        Driver(log, app) as driver,
        PostgresSink(dsn, [days], schema) as sink,
        log.subscribe(f"sink-{schema}", [topic_of(days)]) as subscription,
        Reads(dsn, schema) as reads,
        serving(tmp_path, log, reads=reads, installed=there) as api,
    ):
        sold = [{"type": "z.paid", "entity": f"till-{n}", "day": "monday", "cents": n} for n in range(12)]
        placed = await api.ask("POST", "/topics/company-data", api.acme, json=sold)
        assert placed.status_code == 201, placed.text
        assert len({place["partition"] for place in placed.json()}) > 1
        wrong = await api.ask("POST", "/topics/company-data", api.acme, json={"type": "z.paid", "day": "monday"})
        assert wrong.json()["error"]["code"] == "wrong_type"
        await driver.settle()
        follower = Follower(sink, [days])
        while sum((await reads.positions(days, None)).get("company-data", {}).values()) < len(sold):
            await follower.step(subscription, log)
        row = (await api.ask("GET", "/projections/days/acme%2Fmonday", api.acme)).json()
        assert row["row"] == {"cents": 66} and row["proof"]["version"] == 1
        assert (await api.ask("GET", "/projections/days/acme%2Fmonday", api.globex)).status_code == 404
        assert (await api.ask("GET", "/projections/days", api.globex)).json()["rows"] == []
        assert "days" in {each["projection"] for each in (await api.ask("GET", "/projections", api.acme)).json()}
        async with await psycopg.AsyncConnection.connect(dsn) as database:
            found = await database.execute(f'SELECT key, company, cents FROM "{schema}".days')
            assert json.dumps(await found.fetchall()) == '[["acme/monday", "acme", 66]]'
