"""How large a record batch is unpacked, known before anybody unpacks it.

A broker holds only the packed bytes against its limit, and 1 MiB of zstd can be 30 GB. For lz4, snappy and zstd their
blocks say how large they can be. gzip says nothing that holds: it is unpacked here, and no further than the limit. What
is large is unpacked here as well: zstd's blocks may hold less than they could, and small headers are large in memory.
"""

import struct
import zlib
from collections.abc import Callable, Mapping
from functools import partial

from aiokafka.codec import lz4_decode, snappy_decode
from aiokafka.record.util import decode_varint_py
from cramjam import DecompressionError, zstd

from schemas.rejected import Unusable

LIMIT = 32 << 20
"""Bytes. A client that means well stays below a few MiB, and what lies in a batch is held in memory whole."""
UNPACKED, TIMES = 2 << 20, 64
"""What a batch may be unpacked: more than clients send that do not pack, and than a letter of ours has; and so many
times what was sent. A broker's quotas and limits count packed bytes: else 50 KiB would be as much as a gigabyte."""
RECORD = 128
"""Bytes that Python needs for a record beside its own: a batch of empty ones weighs more than it holds."""

GZIP, SNAPPY, LZ4, ZSTD = 1, 2, 3, 4
PIECE = 16 << 10
LARGE = 4 << 20
XERIAL = b"\x82SNAPPY\x00\x00\x00\x00\x01\x00\x00\x00\x01"
LZ4_FRAME, ZSTD_FRAME, SKIPPED_FRAME = 0x184D2204, 0xFD2FB528, 0x184D2A50
ZSTD_BLOCK = 128 << 10
Measure = Callable[[memoryview, int], tuple[int, int]]
"""(bytes, behind the frame's first four) to the end of the frame, and what it holds at most."""

_uint32 = struct.Struct("<I").unpack_from
_int32 = struct.Struct(">i").unpack_from


def measured(codec: int, packed: memoryview) -> tuple[int, bytes | memoryview | None]:
    """At least the size that it unpacks to, and the bytes themselves of what is large or in gzip.

    Raises Unusable where it is over its limit, or cannot be unpacked.
    """
    limit = min(LIMIT, UNPACKED + TIMES * len(packed))
    if codec == GZIP:
        body = _gunzip(packed, limit)
        return len(body), body
    try:
        size = SIZES[codec](packed)
    except (struct.error, IndexError) as error:
        raise _malformed("it ends too early") from error
    if size <= min(LARGE, limit):
        return size, None
    if codec == ZSTD:
        exact: bytes | memoryview = _unzstd(packed, size, limit)
    else:
        within(size)
        try:
            exact = (lz4_decode if codec == LZ4 else snappy_decode)(bytes(packed))
        except DecompressionError as error:
            raise _malformed(str(error)) from error
    return within(len(exact), limit), exact


def headers(records: bytes | memoryview, count: int) -> int:
    """How many all of them have: one may take two bytes, and far more when it is a pair of Python's."""
    at = found = 0
    try:
        for _ in range(count):
            length, at = decode_varint_py(records, at)
            end = at + length
            _, at = decode_varint_py(records, at + 1)  # behind the attributes, the time
            _, at = decode_varint_py(records, at)  # the offset
            for _ in ("key", "value"):
                size, at = decode_varint_py(records, at)
                at += max(0, size)
            found += max(0, decode_varint_py(records, at)[0])
            at = end
    except (IndexError, ValueError) as error:
        raise _malformed("its records make no sense") from error
    return found


def _unzstd(packed: memoryview, most: int, limit: int) -> memoryview:
    unpacked = bytearray(min(most, limit))
    try:
        return memoryview(unpacked)[: zstd.decompress_into(packed, unpacked)]
    except DecompressionError as error:
        within(most, limit)  # there was no room, or it is no zstd: too much to find out which
        raise _malformed(str(error)) from error


def _gunzip(packed: memoryview, limit: int) -> bytes:
    """Members one after another, with zeros between them, as Python's own `gzip` takes it."""
    parts, left, at = [], limit, 0
    member = zlib.decompressobj(31)
    try:
        while at < len(packed):
            piece = packed[at : at + PIECE]
            parts.append(member.decompress(piece, left + 1))
            left -= len(parts[-1])
            within(limit - left, limit)
            at += len(piece) - len(member.unused_data)
            if member.eof:
                member = zlib.decompressobj(31)
                while at < len(packed) and not packed[at]:
                    at += 1
                if at == len(packed):
                    return b"".join(parts)
    except zlib.error as error:
        raise _malformed(str(error)) from error
    raise _malformed("it ends too early")


def within(size: int, limit: int = LIMIT) -> int:
    if size > limit:
        raise Unusable("too_large", f"a record batch that takes more than {limit} bytes when it is unpacked")
    return size


def _frames(packed: memoryview, begins: int, name: str, measure: Measure) -> int:
    """All of them together. What begins as a frame that lz4 and zstd pass over holds nothing."""
    at = size = 0
    while at < len(packed):
        (frame,) = _uint32(packed, at)
        if frame & 0xFFFFFFF0 == SKIPPED_FRAME:
            at += 8 + _uint32(packed, at + 4)[0]
        elif frame == begins:
            at, holds = measure(packed, at + 4)
            size += holds
        else:
            raise _malformed(f"{frame:08x} begins no {name} frame")
    return size


def _lz4_frame(packed: memoryview, at: int) -> tuple[int, int]:
    flags, size = packed[at], 0
    most = 1 << 8 + 2 * (packed[at + 1] >> 4 & 7)
    # Before the blocks may stand the size of the content and a dictionary's id, behind each its checksum.
    at += 3 + (flags & 8) + 4 * (flags & 1)
    while length := _uint32(packed, at)[0]:
        kept = length & 0x7FFFFFFF
        # No byte of a block stands for more than 255.
        size += kept if kept != length else min(most, 255 * (kept + 1))
        at += 4 + kept + (flags >> 2 & 4)
    return at + 4 + (flags & 4), size


def _zstd_frame(packed: memoryview, at: int) -> tuple[int, int]:
    flags, size, last = packed[at], 0, 0
    single = flags >> 5 & 1
    # What the frame says of its own size is found wrong only when it is unpacked.
    at += 1 + (1 - single) + (0, 1, 2, 4)[flags & 3] + (single, 2, 4, 8)[flags >> 6]
    while not last:
        block = packed[at] | packed[at + 1] << 8 | packed[at + 2] << 16
        last, kind, length = block & 1, block >> 1 & 3, block >> 3
        # As it is, one byte repeated, or compressed.
        size += length if kind < 2 else ZSTD_BLOCK
        at += 3 + (1 if kind == 1 else length)
    return at + (flags & 4), size


def _snappy(packed: memoryview) -> int:
    if len(packed) <= len(XERIAL) or packed[: len(XERIAL)] != XERIAL:
        return _snappy_block(packed, 0)
    at, size = len(XERIAL), 0
    while at < len(packed):
        (length,) = _int32(packed, at)
        if length <= 0:
            raise _malformed(f"a snappy block of {length} bytes")
        size += _snappy_block(packed, at + 4)
        at += 4 + length
    return size


def _snappy_block(packed: memoryview, at: int) -> int:
    """Its first bytes say the size, and an unpacker takes no more than it says."""
    size = 0
    for n in range(5):
        size |= (packed[at + n] & 127) << 7 * n
        if packed[at + n] < 128:
            return size
    raise _malformed("a snappy block without a size")


def _malformed(what: str) -> Unusable:
    return Unusable("malformed", f"a record batch that cannot be unpacked: {what}")


SIZES: Mapping[int, Callable[[memoryview], int]] = {
    SNAPPY: _snappy,
    LZ4: partial(_frames, begins=LZ4_FRAME, name="lz4", measure=_lz4_frame),
    ZSTD: partial(_frames, begins=ZSTD_FRAME, name="zstd", measure=_zstd_frame),
}
