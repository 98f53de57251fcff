"""A place has one name, whatever prefix or map is in force: the broker's, in ids, letters, markers and rows alike."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from projections.training_runs import TRAINING_RUNS
from rillfold.testing.driver import Driver
from schemas.envelope import Origin, derived_id
from schemas.topics import TopicNames
from streams.history.letters import letters
from streams.history.redrive import redrive
from streams.history.refold import held
from streams.log.memory import MemoryLog
from streams.log.port import records_in
from streams.state.changelog import topic_of

WISH = b'{"type": "training.requested", "company": "acme", "base_model": "b"}'
NOW = 1_700_000_000_000_000
INSTALLED: Mapping[str, Any] = {
    "plain": {},
    "prefix": {"prefix": "north-"},
    "map": {"renamed": {"training-request": "wishes"}},
    "both": {"prefix": "north-", "renamed": {"training-request": "wishes"}},
}


@pytest.mark.parametrize("how", INSTALLED)
async def test_ids_letters_markers_and_rows_name_a_place_as_the_broker_does(how: str) -> None:
    names = TopicNames(**INSTALLED[how])
    wire, log = names.wire("training-request"), MemoryLog()
    async with Driver(log, [TRAINING_RUNS], names=names) as driver:
        for value in (WISH, b"no event", WISH):
            await driver.send_bytes("training-request", value, b"acme")
        await driver.settle()
        assert await driver.digest(TRAINING_RUNS) == await driver.refold(TRAINING_RUNS)
    places = [record.origin for n in await log.ends(wire) async for record in records_in(log, wire, n, 0)]
    assert [place.offset for place in places] == [0, 1, 2]
    (kept,) = await letters(log, names, lambda _: True)
    letter = kept.letter
    assert Origin(letter.topic, letter.partition, letter.offset) == places[1]
    assert letter.id == derived_id(places[1], "rejected")
    parts = (await held(log, TRAINING_RUNS, topic_of(TRAINING_RUNS, names.prefix))).values()
    assert {topic for part in parts for topic in part.markers} == {wire}
    assert {key for part in parts for key in part.rows} == {f"acme/{derived_id(place)}" for place in places[::2]}


async def test_a_letter_of_one_installation_goes_to_no_topic_of_another() -> None:
    """As one that was mirrored: its place is no place of ours."""
    log, north, plain = MemoryLog(), TopicNames(prefix="north-"), TopicNames()
    async with Driver(log, [TRAINING_RUNS], names=north) as theirs:
        await theirs.send_bytes("training-request", b"no event", b"acme")
        await theirs.settle()
        (kept,) = await letters(log, north, lambda _: True)
    async with Driver(log, [TRAINING_RUNS], names=plain):
        done = await redrive(log, plain, [kept.letter], NOW)
        assert (done.sent, [each.why for each in done.left_out]) == (0, ["elsewhere"])
        ends = {topic: await log.ends(topic) for topic in map(plain.wire, ("training-request", "dead-letter"))}
        assert not any(end for each in ends.values() for end in each.values())
        assert (await redrive(log, north, [kept.letter], NOW)).sent == 1
