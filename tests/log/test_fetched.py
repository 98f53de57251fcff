"""Whole record batches, taken as they lie in a fetch: what aiokafka would hand out record by record, and no other."""

from __future__ import annotations

import gc
import sys
import weakref
from random import Random
from types import SimpleNamespace
from typing import Any

import pytest
from aiokafka import TopicPartition
from aiokafka.consumer.fetcher import READ_COMMITTED, FetchResult, PartitionRecords
from aiokafka.errors import CorruptRecordException
from aiokafka.record.default_records import DefaultRecordBatchBuilder
from aiokafka.record.memory_records import MemoryRecords

from streams.log.kafka.fetched import Waiting, _batches
from streams.log.kafka.opened import Kept

TP = TopicPartition("company-data", 0)


class State:
    """Where a consumer stands in the partition."""

    paused = False

    def __init__(self, position: int) -> None:
        self.position = position

    def consumed_to(self, position: int) -> None:
        self.position = position


def batch(start: int, count: int, producer: int = -1, transactional: bool = False) -> bytes:
    builder = DefaultRecordBatchBuilder(2, 0, transactional, producer, 0, 0 if producer >= 0 else -1, 1 << 20)
    for n in range(count):
        builder.append(n, None, b"key", b"%d" % (start + n), [])
    raw = bytearray(builder.build())
    raw[0:8] = start.to_bytes(8, "big")
    return bytes(raw)


def strange(start: int) -> bytes:
    """A record batch as a client without manners writes it: a header's key is no UTF-8, another's value is null."""
    builder = DefaultRecordBatchBuilder(2, 0, False, -1, -1, -1, 1 << 20)
    builder.append(0, 7, b"key", b"first", [("fine", b"1"), ("null", None)])
    builder.append(1, -1, b"key", b"second", [("HEAD", b"2")])
    raw = bytearray(builder.build())
    at = raw.index(b"HEAD")
    raw[at : at + 4] = b"\xff\xfe\x00A"
    raw[0:8] = start.to_bytes(8, "big")
    raw[17:21] = crc(bytes(raw[21:])).to_bytes(4, "big")
    return bytes(raw)


def test_a_header_key_that_is_no_utf8_is_spelled_and_holds_nothing_up():
    parsed = PartitionRecords(TP, Kept(batch(0, 2) + strange(2) + batch(4, 2)), [], 0, None, None, True, 0)
    taken = [record for records, _ in _batches(parsed, TP) for record in records]
    assert [record.offset for record in taken] == list(range(6))
    assert [record.value for record in taken[2:4]] == [b"first", b"second"]
    assert [tuple(record.headers) for record in taken[2:4]] == [
        (("fine", b"1"), ("null", None)),
        (("\\xff\\xfe\x00A", b"2"),),
    ]
    assert [(record.timestamp, record.key) for record in taken[2:4]] == [(7, b"key"), (-1, b"key")]


def abort_marker(offset: int, producer: int) -> bytes:
    """As a broker writes it: bit 5 of the attributes says control, and the key's type 0 says abort."""
    builder = DefaultRecordBatchBuilder(2, 0, True, producer, 0, -1, 1 << 20)
    builder.append(0, None, b"\x00\x00\x00\x00", b"\x00\x00\x00\x00\x00\x00", [])
    raw = bytearray(builder.build())
    raw[0:8] = offset.to_bytes(8, "big")
    raw[21:23] = (int.from_bytes(raw[21:23], "big") | 0x20).to_bytes(2, "big")
    raw[17:21] = crc(bytes(raw[21:])).to_bytes(4, "big")
    return bytes(raw)


def crc(raw: bytes) -> int:
    from aiokafka.record.util import calc_crc32c

    return int(calc_crc32c(raw))


def fetch(raw: bytes, position: int, aborted: Any = None) -> tuple[FetchResult, State]:
    state = State(position)
    assignment = SimpleNamespace(active=True, state_value=lambda _: state)
    parsed = PartitionRecords(TP, MemoryRecords(raw), aborted, position, None, None, True, READ_COMMITTED)
    return FetchResult(TP, assignment=assignment, partition_records=parsed, backoff=0), state


def offsets(result: Any, state: State, chance: Random, waiting: Waiting | None) -> tuple[list[int], int]:
    """All of it, in pieces of any size; each begins where the one before left the position."""
    found: list[int] = []
    while result.has_more():
        limit, before = chance.choice((1, 3, 7, 20, 1_000)), state.position
        if waiting is None:
            taken = result.getall(limit)
        else:
            # A limit given with the call comes instead of the one for each partition.
            waiting.limit, given = (limit, None) if chance.random() < 0.5 else (2, limit)
            taken = result.getall(given)
        assert len(taken) <= limit
        whole = [record.offset for record in taken]
        assert all(before <= offset < state.position for offset in whole), (before, whole, state.position, waiting)
        found += whole
    return found, state.position


@pytest.mark.parametrize("seed", range(100))
def test_what_aiokafka_hands_out_in_pieces_of_any_size(seed: int):
    chance = Random(seed)
    position, next_, raw, aborted = chance.randrange(12), 0, b"", list[tuple[int, int]]()
    for _ in range(chance.randrange(1, 30)):
        next_ += chance.choice((0, 0, 0, 5))  # compacted away
        count, kind = chance.randrange(1, 12), chance.choice(("plain", "plain", "kept", "aborted"))
        transactional = {} if kind == "plain" else {"producer": 7, "transactional": True}
        made = batch(next_, count, **transactional)
        if kind == "aborted":
            aborted.append((7, next_))
            made += abort_marker(next_ + count, 7)
            count += 1
        next_ += count
        # A broker begins with the batch that the position lies in.
        raw += made if next_ > position else b""
    raw += batch(next_, 5)[: chance.randrange(60)]  # and ends anywhere
    waiting = Waiting()
    ours, our_state = fetch(raw, position, list(aborted))
    waiting[TP] = ours
    theirs = fetch(raw, position, list(aborted))
    assert offsets(ours, our_state, Random(seed), waiting) == offsets(*theirs, Random(seed + 1), None)


def test_a_fetch_that_is_done_is_gone_without_a_look_at_cycles():
    """It holds megabytes, and the fold rarely looks."""
    waiting = Waiting()
    waiting[TP] = fetched = fetch(batch(0, 5), 0)[0]
    gone = weakref.ref(fetched._partition_records)
    gc.disable()
    try:
        assert len(fetched.getall()) == 5
        del waiting, fetched
        assert gone() is None
    finally:
        gc.enable()


def test_a_batch_that_was_damaged_on_its_way_is_refused():
    raw = bytearray(batch(0, 5))
    raw[-1] ^= 1
    waiting = Waiting()
    waiting[TP] = fetched = fetch(bytes(raw), 0)[0]
    with pytest.raises(CorruptRecordException):
        fetched.getall()


def test_what_was_fetched_before_a_seek_is_dropped():
    waiting = Waiting()
    waiting.limit = 2
    fetched, state = fetch(batch(0, 5), 0)
    waiting[TP] = fetched
    assert [record.offset for record in fetched.getall()] == [0, 1]
    state.position = 4
    assert fetched.getall() == []
    assert not fetched.has_more()


def test_nothing_is_kept_of_a_batch_that_was_handed_out():
    """What is fetched behind it may wait for long, and each partition would keep one."""
    waiting, state = Waiting(), State(0)
    waiting.at_once = 1
    parsed = PartitionRecords(TP, Kept(batch(0, 3) + batch(3, 2)), [], 0, None, None, True, 0)
    assignment = SimpleNamespace(active=True, state_value=lambda _: state)
    waiting[TP] = FetchResult(TP, assignment=assignment, partition_records=parsed, backoff=0)
    (_, _, last) = waiting[TP].getall()
    assert waiting[TP].has_more()
    assert sys.getrefcount(last) == 2
