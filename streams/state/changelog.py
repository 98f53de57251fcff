"""What a changelog holds: rows with where they were folded from, and markers that say how far a source was folded."""

from collections.abc import Iterable, Mapping, Set
from math import isfinite
from typing import Any, Generic, TypeVar

import msgspec
import msgspec.inspect

from projections.projection import Projection
from streams.state.refusal import Refusal

State = TypeVar("State", bound=msgspec.Struct)

# Row keys begin with a company (`streams.state.refusal.check_key`), so nothing of a user's can begin with this byte.
RESERVED = b"\x00"
CLAIM = RESERVED + b"claim"
MARKERS = RESERVED + b"marker/"
REFUSED = RESERVED + b"refused/"
LOST = RESERVED + b"lost/"
MISSING = RESERVED + b"missing/"

UNTYPED = (msgspec.inspect.FloatType, msgspec.inspect.AnyType, msgspec.inspect.CustomType)

Rows = list[tuple[bytes, bytes | None]]
"""Keys and values of one record batch, in order. What has no value is removed."""


class Stored(msgspec.Struct, Generic[State], frozen=True):
    """A row as the changelog, the local store and every sink know it."""

    at: tuple[str, int, int]
    """Topic, partition and offset of the last event that changed the row."""
    row: State


class Marker(msgspec.Struct, frozen=True):
    """Everything of this source partition below `next` is in the rows."""

    topic: str
    partition: int
    next: int


class Loss(msgspec.Struct, frozen=True):
    """An operator has accepted that a source no longer holds what it was folded up to: it went on elsewhere."""

    topic: str
    partition: int
    folded: int
    next: int
    nth: int = 1
    """At that offset. What is lost there again is another loss."""

    def __str__(self) -> str:
        if self.next == self.folded:
            return (
                f"{self.topic}/{self.partition} was folded up to {self.folded}, lost, and folded on there: by an "
                f"operator's word, it holds again what it held"
            )
        return (
            f"{self.topic}/{self.partition} was folded up to {self.folded} and then, by an operator's word, from "
            f"{self.next} on: its rows are not the fold of what the log holds"
        )


class SeenMissing(msgspec.Struct, frozen=True):
    """A source was seen to hold [first, end), and not what was folded of it. It stays so, however it grows, until an
    operator has said where to go on: then `answered`."""

    topic: str
    partition: int
    first: int
    end: int
    answered: bool = False
    spent: tuple[tuple[int, int], ...] = ()
    """(offset, nth) of each word that was there for this source when one of its losses was answered: none of them is
    left to answer another."""


def topic_of(projection: Projection[Any], prefix: str = "") -> str:
    return f"{prefix}rillfold-{projection.name}-v{projection.version}-changelog"


def marker_key(topic: str, partition: int) -> bytes:
    return MARKERS + f"{topic}/{partition}".encode()


def marker_record(marker: Marker) -> tuple[bytes, bytes]:
    return marker_key(marker.topic, marker.partition), msgspec.json.encode(marker)


def claim_record(owner: str) -> tuple[bytes, bytes]:
    """The first thing an owner writes. Whatever an earlier owner sends afterwards is refused by the broker."""
    return CLAIM, msgspec.json.encode({"owner": owner})


def marker_of(key: bytes, value: bytes | None) -> Marker | None:
    """The marker in a record, if it is one."""
    return msgspec.json.decode(value, type=Marker) if key.startswith(MARKERS) and value is not None else None


def refusal_record(refusal: Refusal) -> tuple[bytes, bytes]:
    """One for each event, so that compaction keeps it."""
    return refusal_key(refusal.topic, refusal.partition, refusal.offset), msgspec.json.encode(refusal)


def refusal_key(topic: str, partition: int, offset: int) -> bytes:
    return REFUSED + f"{topic}/{partition}/{offset}".encode()


def refusal_of(key: bytes, value: bytes | None) -> Refusal | None:
    """The refusal in a record, if it is one."""
    return msgspec.json.decode(value, type=Refusal) if key.startswith(REFUSED) and value is not None else None


def refused_at(key: bytes) -> tuple[str, int, int] | None:
    """The place of a refusal that is removed."""
    topic, *numbers = spelled(key.removeprefix(REFUSED)).split("/")
    if not key.startswith(REFUSED) or len(numbers) != 2 or not all(n.isdecimal() and len(n) < 19 for n in numbers):
        return None
    return topic, int(numbers[0]), int(numbers[1])


def loss_key(loss: Loss) -> bytes:
    nth = "" if loss.nth == 1 else f"#{loss.nth}"
    return LOST + f"{loss.topic}/{loss.partition}/{loss.folded}{nth}".encode()


def loss_record(loss: Loss) -> tuple[bytes, bytes]:
    return loss_key(loss), msgspec.json.encode(loss)


def loss_of(key: bytes, value: bytes | None) -> Loss | None:
    """The accepted loss in a record, if it is one."""
    return msgspec.json.decode(value, type=Loss) if key.startswith(LOST) and value is not None else None


def anew_from(losses: Iterable[Loss], at: int) -> int | None:
    """Where an operator has let a source go on below what was folded, as long as it is not folded so far again: from
    there on other records stand than those of which the group has spoken."""
    return min((loss.next for loss in losses if loss.next <= at < loss.folded), default=None)


def missing_of(key: bytes, value: bytes | None) -> SeenMissing | None:
    """That a source was seen not to hold what was folded, in a record, if it is that."""
    return msgspec.json.decode(value, type=SeenMissing) if key.startswith(MISSING) and value is not None else None


def missing_key(topic: str, partition: int) -> bytes:
    return MISSING + f"{topic}/{partition}".encode()


def missing_record(missing: SeenMissing) -> tuple[bytes, bytes]:
    return missing_key(missing.topic, missing.partition), msgspec.json.encode(missing)


def spelled(key: bytes) -> str:
    """A row's key as text, whatever somebody else has written into a changelog."""
    return key.decode("utf-8", "backslashreplace")


class RowCodec(Generic[State]):
    """Rows of one projection to bytes and back."""

    def __init__(self, state: type[State]) -> None:
        self._decoder = msgspec.json.Decoder(Stored[state])  # type: ignore[valid-type]
        self._encoder = msgspec.json.Encoder()
        self._may_hold_floats = _may_hold_floats(msgspec.inspect.type_info(state), set())

    def encode(self, state: State, topic: str, partition: int, offset: int) -> bytes:
        """Numbers that JSON does not have would become null: `ValueError`."""
        if self._may_hold_floats and not _finite(state):
            raise ValueError("a number that is not finite")
        return self._encoder.encode(Stored((topic, partition, offset), state))

    def decode(self, value: bytes) -> Stored[State]:
        return self._decoder.decode(value)


def _may_hold_floats(found: object, seen: set[int]) -> bool:
    """Asked once for a state's type, so that rows of other types cost nothing."""
    if isinstance(found, UNTYPED):
        return True
    if isinstance(found, (list, tuple)):
        return any(_may_hold_floats(each, seen) for each in found)
    if not isinstance(found, (msgspec.inspect.Type, msgspec.inspect.Field)) or id(found) in seen:
        return False
    seen.add(id(found))
    return any(_may_hold_floats(getattr(found, name), seen) for name in found.__struct_fields__)


def _finite(value: object) -> bool:
    if isinstance(value, float):
        return isfinite(value)
    if isinstance(value, msgspec.Struct):
        return all(_finite(getattr(value, name)) for name in value.__struct_fields__)
    if isinstance(value, Mapping):
        return all(map(_finite, value.values()))
    return not isinstance(value, (list, tuple, Set)) or all(map(_finite, value))
