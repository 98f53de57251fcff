"""Record batches that are small on the wire and not in memory: none of them is opened, and none hides the next one."""

from __future__ import annotations

import gzip
import zlib
from random import Random
from struct import pack
from types import SimpleNamespace
from typing import Any

import cramjam
import pytest
from aiokafka import TopicPartition
from aiokafka.codec import gzip_encode, lz4_encode, snappy_encode, zstd_encode
from aiokafka.consumer.fetcher import FetchResult, PartitionRecords
from aiokafka.record.default_records import DefaultRecordBatchBuilder
from aiokafka.record.util import calc_crc32c

from schemas.codec.codec import decode, decode_batch
from schemas.envelope import Origin
from schemas.rejected import RefusedValue, Rejected, Unusable
from streams.log.kafka import fetched, packed
from streams.log.kafka.fetched import Waiting, _batches
from streams.log.kafka.opened import HEAD, Kept, WholeBatch
from tests.log.test_fetched import State, batch

TP = TopicPartition("company-data", 0)
HEAVY = Random(3).randbytes(1 << 19)
"""Cannot be packed: a batch that has it may be unpacked to as much as any."""
ENCODE = {1: gzip_encode, 2: snappy_encode, 3: lz4_encode, 4: zstd_encode}
CODECS = pytest.mark.parametrize("codec", ENCODE, ids=("gzip", "snappy", "lz4", "zstd"))
MIB = 1 << 20


def built(codec: int, start: int, *values: bytes) -> bytes:
    builder = DefaultRecordBatchBuilder(2, codec, False, -1, -1, -1, 1 << 30)
    for n, value in enumerate(values):
        builder.append(n, 7, b"key", value, [])
    return placed(bytearray(builder.build()), start)


def placed(raw: bytearray, start: int) -> bytes:
    raw[0:8] = start.to_bytes(8, "big")
    raw[8:12] = (len(raw) - 12).to_bytes(4, "big")
    raw[17:21] = calc_crc32c(bytes(raw[21:])).to_bytes(4, "big")
    return bytes(raw)


def written(codec: int, start: int, body: bytes, count: int = 1) -> bytes:
    """A batch whose packed bytes a client has made up."""
    raw = bytearray(built(0, start, b"")[:HEAD]) + body
    raw[22] = codec
    raw[23:27] = (count - 1).to_bytes(4, "big")
    raw[57:61] = count.to_bytes(4, "big")
    return placed(raw, start)


def taken(raw: bytes, position: int = 0) -> list[Any]:
    parsed = PartitionRecords(TP, Kept(raw), [], position, None, None, True, 0)
    return [record for records, _ in _batches(parsed, TP) for record in records]


@CODECS
def test_what_fits_is_read_as_ever(codec: int):
    values = [b"first" * 1_000, HEAVY + bytes(3 * MIB), b"last"]
    records = taken(built(codec, 5, *values) + built(codec, 8, b"after" * 100))
    assert [record.offset for record in records] == [5, 6, 7, 8]
    assert [record.value for record in records] == [*values, b"after" * 100]
    assert {(record.key, record.timestamp) for record in records} == {(b"key", 7)}


@CODECS
def test_packing_makes_little_into_little(codec: int):
    """A quota counts what is sent. Of what is sent unpacked no client makes more than a MiB at once."""
    as_much = bytes(2 * MIB - 100)
    assert [record.value for record in taken(built(codec, 0, as_much))] == [as_much]
    lines = [b'{"id":"%032x","text":"the same again"}' % n for n in Random(2).sample(range(1 << 60), 40_000)]
    assert [record.value for record in taken(built(codec, 0, *lines))] == lines
    more = taken(built(codec, 0, *[bytes(MIB)] * 3))
    if codec == 2:  # its bytes stand for 22 at most
        assert len(more) == 3
    else:
        assert [each.value.reason for each in more] == ["too_large"]


@CODECS
def test_one_record_stands_for_a_batch_that_is_too_large(codec: int):
    bomb = built(codec, 10, b"a", *[HEAVY + bytes(10 * MIB)] * 4)
    assert len(bomb) < 4 * MIB
    records = taken(batch(8, 2) + bomb + batch(15, 2))
    assert [record.offset for record in records] == [8, 9, 10, 15, 16]
    whole = records[2]
    assert (whole.key, whole.value, whole.timestamp, whole.headers) == (None, bomb[HEAD:], 7, ())
    rejected = decode(whole.value, Origin("company-data", 0, 10), 7)
    assert isinstance(rejected, Rejected) and rejected.reason == "too_large"
    assert decode_batch("company-data", 0, records)[2] == rejected
    assert [record.offset for record in taken(bomb + batch(15, 2), 12)] == [15, 16]


def test_a_batch_of_nothing_but_records_is_too_large_as_well():
    """Python needs far more for a record than its seven bytes."""
    count = 300_000
    body = b"".join(b"\x10\x00\x00" + _varint(n) + b"\x01\x01\x00" for n in range(count))
    (whole,) = taken(written(4, 0, zstd_encode(body), count))
    assert isinstance(whole, WholeBatch) and whole.value.reason == "too_large"


@CODECS
def test_a_batch_of_nothing_but_headers_is_too_large_as_well(codec: int):
    """Two bytes each, and thirty times as much in memory."""
    builder = DefaultRecordBatchBuilder(2, codec, False, -1, -1, -1, 1 << 30)
    builder.append(0, 7, b"key", HEAVY, [("", None)] * (3 * MIB))
    (whole,) = taken(placed(bytearray(builder.build()), 0))
    assert isinstance(whole, WholeBatch) and whole.value.reason == "too_large"


def test_headers_count_where_one_call_may_hold_so_much():
    waiting, many = Waiting(), [("", None)] * 400_000
    builder = DefaultRecordBatchBuilder(2, 0, False, -1, -1, -1, 1 << 30)
    builder.append(0, 7, b"key", None, many)
    Partition(waiting, 0, b"".join(placed(bytearray(builder.build()), n) for n in range(10)))
    assert len(waiting[TP].getall()) < 5


def _varint(number: int) -> bytes:
    """Of three bytes, whatever it is."""
    number *= 2
    return bytes((number & 127 | 128, number >> 7 & 127 | 128, number >> 14))


ZEROS = bytes(40 * MIB)
LIES = {
    "zstd that says it is small": (4, b"\x28\xb5\x2f\xfd\x80\x58\x10\x00\x00\x00" + zstd_encode(ZEROS)[10:]),
    "zstd of repeated bytes": (4, b"\x28\xb5\x2f\xfd\x00\x58" + 400 * b"\xfa\xff\x0f\x00" + b"\x03\x00\x00\x00"),
    "zstd in many frames": (4, zstd_encode(bytes(MIB)) * 40),
    "zstd behind what is skipped": (4, pack("<II", 0x184D2A53, 3) + b"abc" + zstd_encode(ZEROS)),
    "lz4 in many frames": (3, lz4_encode(bytes(MIB)) * 40),
    "lz4 behind what is skipped": (3, pack("<II", 0x184D2A53, 3) + b"abc" + lz4_encode(ZEROS)),
    "gzip in many members": (1, gzip.compress(bytes(MIB)) * 40),
    "gzip in members of nothing, and one more": (1, gzip.compress(b"") * 20_000 + b"\0" * 1_000 + gzip.compress(ZEROS)),
    "snappy that says too much": (2, b"\xff\xff\xff\xff\x0f" + b"x" * 100),
    "snappy blocks that say too much": (2, packed.XERIAL + (pack(">i", 6) + b"\x80\x80\x80\x08xx") * 3),
}


@pytest.mark.parametrize("lie", LIES)
def test_what_it_says_of_itself_is_not_believed(lie: str):
    whole, after = taken(written(LIES[lie][0], 0, LIES[lie][1]) + batch(1, 1))
    assert whole.value.reason == "too_large", whole.value.detail
    assert (whole.value, after.offset) == (LIES[lie][1], 1)


@pytest.mark.parametrize(
    ("codec", "body"),
    [(codec, body) for codec in ENCODE for body in (b"", b"\0", b"nothing of the kind" * 9, ENCODE[codec](ZEROS)[:-9])]
    + [(2, packed.XERIAL + pack(">i", -4) * 5), (1, zlib.compress(b"x" * 100)), (4, b"\x28\xb5\x2f\xfd\xff\xff")],
)
def test_what_cannot_be_unpacked_is_refused_whole(codec: int, body: bytes):
    whole, after = taken(written(codec, 0, body) + batch(1, 1))
    assert isinstance(whole.value, RefusedValue)
    assert whole.value.reason in ("malformed", "too_large")
    assert after.offset == 1


@pytest.mark.parametrize("offsets", [(0, 1_000_000, 2), (0, 1, 1), (-3, 1, 2), (2, 1, 0), (0, 5)])
def test_a_batch_whose_records_are_not_in_their_places_is_refused_whole(offsets: tuple[int, ...]):
    """The broker takes what an unpacked batch says of its offsets; a marker is made of them."""
    builder = DefaultRecordBatchBuilder(2, 0, False, -1, -1, -1, 1 << 30)
    for offset in offsets:
        builder.append(offset, 0, b"k", b"v", [])
    raw = bytearray(builder.build())
    raw[23:27] = (len(offsets) - 1).to_bytes(4, "big")
    (whole,) = taken(placed(raw, 7))
    assert (whole.offset, whole.value.reason) == (7, "malformed")


def packings(chance: Random, body: bytes) -> list[tuple[int, bytes]]:
    """As other clients would pack it: with checksums, in blocks that hang together, at any level, in many frames."""
    lz4 = cramjam.lz4.Compressor(
        level=chance.randrange(1, 12), content_checksum=chance.random() < 0.5, block_linked=chance.random() < 0.5
    )
    lz4.compress(body)
    half = len(body) // 2
    return [
        (3, bytes(lz4.finish())),
        (3, bytes(cramjam.lz4.compress(body[:half])) + bytes(cramjam.lz4.compress(body[half:]))),
        (4, bytes(cramjam.zstd.compress(body, level=chance.randrange(1, 20)))),
        (4, zstd_encode(body[:half]) + zstd_encode(body[half:])),
        (2, snappy_encode(body)),
        (2, snappy_encode(body, xerial_compatible=False)),
    ]


@pytest.mark.parametrize("seed", range(40))
def test_the_size_is_never_below_what_it_unpacks_to(seed: int, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(packed, "UNPACKED", packed.LIMIT)
    chance = Random(seed)
    words = [chance.randbytes(chance.randrange(1, 50)) for _ in range(chance.choice((1, 3, 1_000)))]
    body = b"".join(chance.choices(words, k=chance.choice((1, 100, 40_000))))
    for codec, made in packings(chance, body):
        size, whole = packed.measured(codec, memoryview(made))
        assert len(body) <= size <= packed.LARGE + len(body)
        assert whole is None or bytes(whole) == body
        assert codec != 2 or size == len(body)
    assert packed.measured(1, memoryview(gzip_encode(body[:99]) + gzip_encode(body[99:]))) == (len(body), body)


@pytest.mark.parametrize("seed", range(400))
def test_damaged_bytes_raise_nothing_and_hide_nothing(seed: int):
    """What a broker has let through is a record, or is refused as one."""
    chance = Random(seed)
    body = bytearray(built(0, 0, b"some value" * 50, chance.randbytes(50))[HEAD:])
    codec, made = chance.choice([*packings(chance, bytes(body)), (1, gzip_encode(body))])
    bad = bytearray(made)
    for _ in range(chance.randrange(1, 4)):
        bad[chance.randrange(len(bad))] = chance.randrange(256)
    records = taken(written(codec, 0, bytes(bad[: chance.choice((None, None, len(bad) // 2))]), 2) + batch(2, 1))
    assert records[-1].offset == 2
    assert all(type(record.value) is bytes or isinstance(record.value, RefusedValue) for record in records)


def test_the_limit_is_named():
    with pytest.raises(Unusable, match=str(packed.LIMIT)):
        packed.within(packed.LIMIT + 1)


class Partition:
    """A partition whose fetch is waiting, as aiokafka's fetcher keeps it."""

    def __init__(self, waiting: Waiting, number: int, raw: bytes) -> None:
        self.tp, self.state = TopicPartition("company-data", number), State(0)
        parsed = PartitionRecords(self.tp, Kept(raw), [], 0, None, None, True, 0)
        assignment = SimpleNamespace(active=True, state_value=lambda _: self.state)
        waiting[self.tp] = FetchResult(self.tp, assignment=assignment, partition_records=parsed, backoff=0)


@pytest.mark.parametrize("limit", (None, 3))
def test_no_more_batches_are_opened_than_one_call_may_hold_and_every_partition_has_its_turn(limit: int | None):
    waiting = Waiting()
    waiting.limit = limit
    heavy = b"".join(built(4, n, HEAVY + bytes(19 * MIB)) for n in range(8))
    parts = [Partition(waiting, number, heavy) for number in range(3)] + [Partition(waiting, 3, batch(0, 5))]
    found: dict[int, list[int]] = {part.tp.partition: [] for part in parts}
    calls = 0
    while waiting:
        calls += 1
        size = 0
        for tp in list(waiting.keys()):  # as `Fetcher.fetched_records` does
            records = waiting[tp].getall()
            if not waiting[tp].has_more():
                del waiting[tp]
            found[tp.partition] += [record.offset for record in records]
            size += sum(len(record.value) for record in records)
        assert size <= fetched.AT_ONCE + 20 * MIB
        if calls == 4:
            assert all(found.values())
    assert found == {0: [*range(8)], 1: [*range(8)], 2: [*range(8)], 3: [0, 1, 2, 3, 4]}


def test_what_a_call_leaves_counts_in_the_next_and_holds_nobody_up_for_ever():
    """Many records in one batch: without that each partition has its own in memory, and partitions are many."""
    waiting = Waiting()
    waiting.limit = 2
    raw = built(4, 0, HEAVY, *[HEAVY + bytes(3 * MIB)] * 6)
    parts = [Partition(waiting, number, raw) for number in range(8)]
    found: dict[int, list[int]] = {part.tp.partition: [] for part in parts}
    while waiting:
        for tp in list(waiting.keys()):
            found[tp.partition] += [record.offset for record in waiting[tp].getall()]
            if not waiting[tp].has_more():
                del waiting[tp]
        takers = [vars(each)["getall"] for each in waiting.values()]
        assert sum(len(record.value) for take in takers for record in take._left) <= fetched.AT_ONCE + 25 * MIB
    assert found == {number: [*range(7)] for number in range(8)}
