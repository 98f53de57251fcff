"""How single values stand in Avro's bytes. Each takes (bytes, position) and returns the value and the next position.

None believes a length: what is kept is never more than the bytes that are there.
"""

from functools import lru_cache
from math import isfinite

from schemas.rejected import Unusable
from schemas.words import COMPANY, Word, depth, fits, size
from schemas.words import sane_company as sane_company

MAX_TIME = 253_402_300_799_999_999
"""The last microsecond of the year 9999: what databases and calendars can hold."""

SHOWN = 80


def long(b: bytes, p: int) -> tuple[int, int]:
    """A zigzag varint of at most ten bytes that fits 64 bits."""
    value = shift = 0
    while (byte := b[p]) > 127:
        value |= (byte & 127) << shift
        shift += 7
        p += 1
        if shift > 63:
            break
    value |= b[p] << shift
    if value >> 64:
        raise Unusable("malformed", f"no 64-bit number at byte {p}")
    return (value >> 1) ^ -(value & 1), p + 1


def raw(b: bytes, p: int) -> tuple[bytes, int]:
    """Bytes after their length."""
    size, p = long(b, p)
    if not 0 <= size <= len(b) - p:
        raise Unusable("malformed", f"a length of {size} at byte {p}, where {len(b) - p} are left")
    return b[p : p + size], p + size


def text(b: bytes, p: int) -> tuple[str, int]:
    value, p = raw(b, p)
    return value.decode(), p


def word(kind: Word, field: str, b: bytes, p: int, value: str) -> None:
    """A word that was read up to `p`, which may lie behind the end."""
    if p > len(b):
        ends_at(b, p)
    checked_word(kind, field, value)


def block(b: bytes, p: int) -> tuple[int, int]:
    """How many items of an array follow. A negative count has the block's size behind it, for readers that skip."""
    count, p = long(b, p)
    if count < 0:
        _, p = long(b, p)
    return abs(count), p


def company(b: bytes, p: int) -> tuple[str, int]:
    value, p = text(b, p)
    return checked_company(value), p


def time(b: bytes, p: int) -> tuple[int, int]:
    value, p = long(b, p)
    return checked_time(value), p


def kind(b: bytes, p: int, title: str) -> int:
    """Where type and version end, if they are what the schema says."""
    claimed, p = text(b, p)
    version, p = long(b, p)
    if f"{claimed}.v{version}" != title:
        raise Unusable("mismatch", f"says {claimed[:80]}.v{version} in a schema of {title}")
    return p


def checked_word(word: Word, field: str, value: str) -> str:
    """The word, or why it cannot stand in this field."""
    if fits(word, value):
        return value
    deep = word.made_of == "json" and size(value) <= word.most
    measured = f"{size(value)} bytes" if word.made_of in ("text", "json") else f"{len(value)}: {value[:SHOWN]!r}"
    found = f"{depth(value)} levels" if deep else measured
    raise Unusable("too_deep" if deep else word.reason, f"{field} is no {word.kind}, which is {word.says}, but {found}")


def checked_time(value: int) -> int:
    if 0 <= value <= MAX_TIME:
        return value
    raise Unusable("bad_time", f"time {value} is not microseconds since 1970, up to the year 9999")


def checked_number(value: float) -> float:
    """Rows and answers are JSON, which has no word for the others."""
    if isfinite(value):
        return value
    raise Unusable("wrong_type", f"{value} is no finite number")


@lru_cache(4096)
def checked_company(value: str) -> str:
    return checked_word(COMPANY, "company", value)


def neither(p: int) -> None:
    raise Unusable("malformed", f"byte {p} is neither of the two values that may stand there")


def ends_at(b: bytes, p: int) -> None:
    if p > len(b):
        raise Unusable("malformed", f"{p - len(b)} bytes short")
    raise Unusable("trailing_bytes", f"{len(b) - p} bytes follow the event")
