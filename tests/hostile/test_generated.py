"""What nobody thought of: extreme values for every schema and every route, the same ones at each run of the suite."""

from __future__ import annotations

import pytest

from streams.log.kafka.log import KafkaLog
from tests.hostile.conftest import House
from tests.hostile.mallory.generate import drawn, events, requests
from tests.hostile.play import play

SEED = 13
"""`make hostile` draws others, for an hour."""
EVENTS, REQUESTS = 250, 250


@pytest.mark.timeout(600)
@pytest.mark.parametrize("what", ["events", "requests"])
async def test_what_is_drawn(what: str, house: House, log: KafkaLog, capsys: pytest.CaptureFixture[str]) -> None:
    lines = drawn(events(), EVENTS, SEED) if what == "events" else drawn(requests(), REQUESTS, SEED)
    stage, watch = await house.at_hand()
    played = await play(stage, watch, log, lines)
    with capsys.disabled():
        print(f"\n{len(lines)} {what} of seed {SEED}: {played}")  # noqa: T201
    assert not played.wrong, "\n".join(played.wrong)
