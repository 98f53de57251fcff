"""Refused records and the way back: a letter is data, and may say anything."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec
import pytest

from schemas.codec.codec import decode
from schemas.rejected import RecordRejected, Rejected
from schemas.topics import BY_NAME, TopicNames
from streams.fold.batch import NoEvent
from streams.fold.dead_letter import dead_letter
from streams.history.letters import letters, redrive
from streams.log.kafka.admin import wanted
from streams.log.outgoing import to_outgoing
from streams.log.port import EventLog, Outgoing, Record

TOPICS = [BY_NAME["company-data"], BY_NAME["dead-letter"]]
BYTES = b"no event"


@pytest.fixture
async def other(log: EventLog, names: TopicNames) -> TopicNames:
    """Another installation on the same broker."""
    other = TopicNames(f"{names.prefix}globex.")
    for each in (names, other):
        await log.create(wanted(each, TOPICS))
    return other


async def refused(log: EventLog, names: TopicNames, key: bytes = b"acme") -> RecordRejected:
    """A record that was refused, and its letter."""
    (at,) = await log.append([Outgoing(names.wire("company-data"), key, BYTES)])
    record = Record(at.topic, at.partition, at.offset, 1_000, key, BYTES)
    rejected = decode(record.value, record.origin, record.timestamp)
    assert isinstance(rejected, Rejected)
    letter = dead_letter(NoEvent(record, rejected))
    await say(log, names, letter)
    return letter


async def say(log: EventLog, names: TopicNames, *said: RecordRejected) -> None:
    await log.append([to_outgoing(letter, names) for letter in said])


async def found(log: EventLog, names: TopicNames) -> list[RecordRejected]:
    return [letter async for _, letter in letters(log, names, lambda _: True)]


async def held(log: EventLog, topic: str) -> int:
    return sum((await log.ends(topic)).values())


async def test_a_refused_record_goes_back_once(log: EventLog, names: TopicNames, other: TopicNames) -> None:
    letter = await refused(log, names)
    await say(log, names, letter)  # as after a crash
    assert await found(log, names) == [letter]
    assert [await redrive(log, names, [letter]) for _ in range(2)] == [1, 0]
    assert await held(log, names.wire("company-data")) == 2
    assert await held(log, other.wire("company-data")) == 0


async def test_a_forged_letter_with_anothers_id_hides_nothing(
    log: EventLog, names: TopicNames, other: TopicNames
) -> None:
    ahead = await refused(log, names, b"mallory")
    letter = await refused(log, names)
    forged = [
        msgspec.structs.replace(letter, company="mallory"),
        msgspec.structs.replace(
            letter, company="acme", topic=ahead.topic, partition=ahead.partition, offset=ahead.offset
        ),
    ]
    await say(log, names, *forged, letter)
    assert letter in await found(log, names)


@pytest.mark.parametrize(
    "elsewhere",
    [
        lambda letter, other: {"topic": other.wire("company-data")},
        lambda letter, other: {"topic": "__consumer_offsets"},
        lambda letter, other: {"topic": "../company-data"},
        lambda letter, other: {"partition": 99},
        lambda letter, other: {"partition": -1},
        lambda letter, other: {"offset": 1 << 62},
        lambda letter, other: {"offset": -5},
    ],
    ids=["anothers", "brokers", "path", "no-partition", "negative-partition", "far-offset", "negative-offset"],
)
async def test_a_letter_that_names_another_place_goes_nowhere_and_holds_up_no_other(
    log: EventLog, names: TopicNames, other: TopicNames, elsewhere: Callable[..., dict[str, Any]]
) -> None:
    letter = await refused(log, names)
    forged = msgspec.structs.replace(letter, id="forged", **elsewhere(letter, other))
    before = await held(log, other.wire("company-data"))
    assert await redrive(log, names, [forged, letter]) == 1
    assert await held(log, other.wire("company-data")) == before
