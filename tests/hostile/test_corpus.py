"""Everything that one company was ever seen to break others with, as data: each line by every door."""

from __future__ import annotations

import pytest

from schemas.codec.catalog import classes
from streams.log.kafka.log import KafkaLog
from tests.hostile.conftest import House
from tests.hostile.mallory.words import VALID, groups, lines
from tests.hostile.play import play

LONG = ("training_runs",)
"""Each of its lines may train for a step: `make hostile` has the time."""


@pytest.mark.timeout(600)
@pytest.mark.parametrize("group", [group for group in groups() if group not in LONG])
async def test_a_group_of_the_corpus(group: str, house: House, log: KafkaLog, capsys: pytest.CaptureFixture) -> None:
    stage, watch = await house.at_hand()
    played = await play(stage, watch, log, lines(group))
    with capsys.disabled():
        print(f"\n{group}: {played}")  # noqa: T201
    assert not played.wrong, "\n".join(played.wrong)


def test_the_corpus_is_whole() -> None:
    known = [line for group in groups() for line in lines(group)]
    names = [(line.group, line.name) for line in known]
    assert len(known) >= 300 and len(set(names)) == len(names)
    said = {line.says["type"] for line in known if "type" in line.says}
    assert said == set(VALID) == set(classes()), "every event type is tried"
