"""Refused records and the way back: a letter is data, and may say anything."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import msgspec
import pytest

from schemas.codec.codec import decode
from schemas.rejected import RecordRedriven, RecordRejected, Rejected
from schemas.topics import BY_NAME, TopicNames
from streams.errors import ShutOut
from streams.fold.batch import NoEvent
from streams.fold.dead_letter import LIMITS, REDRIVEN, dead_letter
from streams.history.letters import letters
from streams.history.redrive import LeftOut, Redriven, redrive
from streams.log.kafka.admin import wanted
from streams.log.outgoing import to_outgoing
from streams.log.port import EventLog, Outgoing, Record, limit_of

from .conftest import Faults

TOPICS = [BY_NAME["company-data"], BY_NAME["dead-letter"]]
BYTES = b"no event"
NOW = 1_700_000_000_000_000


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
    return [kept.letter for kept in await letters(log, names, lambda _: True)]


async def held(log: EventLog, topic: str) -> int:
    return sum([len(batch) for partition in await log.ends(topic) async for batch in log.read(topic, partition, 0)])


async def test_a_refused_record_goes_back_once(log: EventLog, names: TopicNames, other: TopicNames) -> None:
    letter = await refused(log, names)
    await say(log, names, letter)  # as after a crash
    assert await found(log, names) == [letter]
    assert [(await redrive(log, names, [letter], NOW)).sent for _ in range(2)] == [1, 0]
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
    assert (await redrive(log, names, [forged, letter], NOW)).sent == 1
    assert await held(log, other.wire("company-data")) == before


async def again(log: EventLog, names: TopicNames) -> RecordRejected:
    """The newest record of the topic, refused as a fold refuses it."""
    topic = names.wire("company-data")
    last = [record async for batch in log.read(topic, 0, 0) for record in batch][-1]
    rejected = decode(last.value, last.origin, last.timestamp)
    assert isinstance(rejected, Rejected)
    letter = dead_letter(NoEvent(last, rejected))
    await say(log, names, letter)
    return letter


async def test_what_is_redriven_and_refused_again_is_the_same_letter_and_may_be_sent_once_more(
    log: EventLog, names: TopicNames, other: TopicNames
) -> None:
    topic = names.wire("company-data")
    (at,) = await log.append([Outgoing(topic, b"acme", BYTES, partition=0)])
    first = await again(log, names)
    assert [(await redrive(log, names, [first], NOW)).sent for _ in range(2)] == [1, 0]
    (kept,) = await letters(log, names, lambda _: True)
    assert kept.redriven
    second = await again(log, names)
    (kept,) = await letters(log, names, lambda _: True)
    assert (second.id, kept.letter, kept.places, kept.redriven) == (first.id, first, [at.offset, second.offset], False)
    for place in (at.offset, second.offset):
        assert len(await letters(log, names, lambda letter, place=place: letter.offset == place)) == 1
    assert [(await redrive(log, names, [first], NOW)).sent for _ in range(2)] == [1, 0]
    assert [kept.redriven for kept in await letters(log, names, lambda _: True)] == [True]
    assert len([record async for batch in log.read(topic, 0, 0) for record in batch]) == 3


async def test_what_an_older_release_sent_on_is_not_sent_again(
    log: EventLog, names: TopicNames, other: TopicNames
) -> None:
    """It wrote no mark: the header of what it sent says so. A header on other bytes is anybody's."""
    letter, forged = await refused(log, names), await refused(log, names)
    for sent, value in ((letter, BYTES), (forged, b"other bytes")):
        header = ((REDRIVEN, sent.id.encode()),)
        await log.append([Outgoing(sent.topic, b"acme", value, header, sent.partition)])
    assert (await redrive(log, names, [letter, forged], NOW)).sent == 1
    assert [kept.redriven for kept in await letters(log, names, lambda _: True)] == [False, True]


async def test_two_redrives_at_once_send_each_record_once(log: EventLog, names: TopicNames, other: TopicNames) -> None:
    some = [await refused(log, names, b"company-%d" % n) for n in range(20)]
    before = await held(log, names.wire("company-data"))
    done = await asyncio.gather(*(redrive(log, names, some, NOW) for _ in range(3)), return_exceptions=True)
    assert {type(each) for each in done} <= {Redriven, ShutOut}
    await redrive(log, names, some, NOW)
    sent = [
        key
        for partition in await log.ends(names.wire("company-data"))
        async for batch in log.read(names.wire("company-data"), partition, 0)
        for key in (record.key for record in batch if record.headers)
    ]
    assert sorted(sent) == sorted(letter.key or b"" for letter in some)
    assert before == 20


async def test_a_letter_of_another_log_whose_topic_has_the_name_of_one_of_ours_goes_nowhere(
    log: EventLog, names: TopicNames, other: TopicNames
) -> None:
    """As when a map gives a topic a name that another one has elsewhere."""
    foreign = await refused(log, other)
    await log.append(
        [Outgoing(names.wire("company-data"), b"acme", b"what stands there", partition=p) for p in range(4)]
    )
    named = msgspec.structs.replace(foreign, topic=names.wire("company-data"))
    await say(log, names, named)
    before = await held(log, names.wire("company-data"))
    assert (await redrive(log, names, [named], NOW)).sent == 0
    assert await held(log, names.wire("company-data")) == before


async def test_a_record_that_its_topic_does_not_take_is_left_out_by_name_and_holds_up_no_other(
    log: EventLog, names: TopicNames, other: TopicNames
) -> None:
    """The header that a redrive adds is the last straw."""
    topic = names.wire("company-data")
    room = limit_of((await log.describe([topic]))[topic])
    (at,) = await log.append([Outgoing(topic, b"mallory", b"\0" * (room - 10), partition=0)])
    large, letter = await again(log, names), await refused(log, names)
    assert large.offset == at.offset
    done = await redrive(log, names, [large, letter], NOW)
    assert (done.sent, done.left_out) == (1, [LeftOut(large, "too_large")])
    assert (await redrive(log, names, [large, letter], NOW)).sent == 0


async def test_a_letter_whose_record_is_gone_is_sent_only_if_the_operator_says_so(
    log: EventLog, names: TopicNames, other: TopicNames, faults: Faults
) -> None:
    topic = names.wire("company-data")
    (at,) = await log.append([Outgoing(topic, b"acme", BYTES, partition=0)])
    letter = await again(log, names)
    await log.append([Outgoing(topic, b"acme", BYTES, partition=0)])
    await faults.truncate(topic, 0, at.offset + 1)
    done = await redrive(log, names, [letter], NOW)
    assert (done.sent, done.left_out) == (0, [LeftOut(letter, "gone")])
    assert [(await redrive(log, names, [letter], NOW, gone=True)).sent for _ in range(2)] == [1, 0]


async def test_a_letter_of_an_offset_that_holds_no_record_or_of_a_topic_that_is_not_there_goes_nowhere(
    log: EventLog, names: TopicNames, other: TopicNames, faults: Faults
) -> None:
    topic = names.wire("company-data")
    letter = await refused(log, names)
    (before,) = await log.append([Outgoing(topic, b"acme", b"before", partition=0)])
    await faults.abort([Outgoing(topic, b"acme", b"aborted", partition=0)])
    at = {"partition": 0, "offset": before.offset + 1}
    void, absent = [
        msgspec.structs.replace(letter, id=id_, value=b"forged", **where)
        for id_, where in (("void", at), ("absent", {"topic": names.wire("adapter-ready")}))
    ]
    done = await redrive(log, names, [void, absent, letter], NOW, gone=True)
    assert (done.sent, {each.letter.id: each.why for each in done.left_out}) == (
        1,
        {"void": "elsewhere", "absent": "elsewhere"},
    )


async def test_a_forged_mark_or_a_forged_place_keeps_no_letter_from_being_sent(
    log: EventLog, names: TopicNames, other: TopicNames
) -> None:
    letter = await refused(log, names)
    about = {"id": "mark", "company": letter.company, "time": 1, "correlation": "mark", "causation": letter.id}
    mark = RecordRedriven(**about, topic=letter.topic, partition=letter.partition, offset=letter.offset)
    await log.append([to_outgoing(mark, names)])
    (kept,) = await letters(log, names, lambda _: True)
    assert not kept.redriven
    await say(log, names, msgspec.structs.replace(letter, offset=letter.offset + 1_000))
    assert [(await redrive(log, names, [letter], NOW)).sent for _ in range(2)] == [1, 0]


async def test_a_list_keeps_no_bytes_and_only_what_is_asked_for(
    log: EventLog, names: TopicNames, other: TopicNames
) -> None:
    acme, _ = await refused(log, names), await refused(log, names, b"globex")
    (kept,) = await letters(log, names, lambda letter: letter.company == "acme", bare=True)
    assert (kept.letter.id, kept.size) == (acme.id, len(BYTES))
    assert (kept.letter.key, kept.letter.value, kept.letter.headers) == (None, None, ())


async def test_a_letter_that_holds_as_much_as_it_may_is_read_again(
    log: EventLog, names: TopicNames, other: TopicNames
) -> None:
    """The broker packs it, and of zeros next to nothing is left: a reader takes that for no bomb."""
    record = Record(names.wire("company-data"), 0, 0, 1_000, b"acme", bytes(LIMITS[0] - 1_000))
    letter = dead_letter(NoEvent(record, Rejected("too_large", "x" * 2_000, record.origin)))
    await say(log, names, letter)
    (kept,) = await letters(log, names, lambda _: True)
    assert kept.letter == letter and letter.value == record.value
