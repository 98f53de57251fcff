"""A company's own adapters, odd in every way that files can be: none of them changes another company's answers."""

from __future__ import annotations

import pytest

from streams.log.kafka.log import KafkaLog
from streams.log.outgoing import to_outgoing
from tests.hostile.conftest import House
from tests.hostile.mallory.adapters import odd_adapters
from tests.hostile.play import play


@pytest.mark.timeout(600)
async def test_odd_adapters_are_nobody_elses_concern(house: House, log: KafkaLog) -> None:
    stage, watch = await house.at_hand()
    said, asked = odd_adapters(stage)
    await log.append([to_outgoing(event, stage.names) for event in said])
    played = await play(stage, watch, log, asked)
    assert not played.wrong, "\n".join(played.wrong)
