"""The API as it describes itself, asked by schemathesis."""

from __future__ import annotations

import pytest

from streams.log.kafka.log import KafkaLog
from tests.hostile.checks import rested, wrong
from tests.hostile.conftest import House
from tests.hostile.mallory.openapi import explored

SEED, REQUESTS = 13, 1_000


@pytest.mark.timeout(600)
async def test_requests_by_its_description(house: House, log: KafkaLog, capsys: pytest.CaptureFixture[str]) -> None:
    stage, watch = await house.at_hand()
    statuses, bad = await explored(stage, watch, REQUESTS, SEED)
    stands = await rested(stage, log) + await wrong(stage, watch, log)
    stage.broken = "; ".join(stands)[:200]
    bad += stands
    with capsys.disabled():
        print(f"\n{statuses.total()} requests of seed {SEED} by the API's own description: {dict(statuses)}")  # noqa: T201
    assert statuses.total() >= REQUESTS and statuses[200] >= 50
    assert not bad, "\n".join(bad)
