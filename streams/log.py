"""The port to the event log. Two backends keep its contract: `streams.memory` and `streams.kafka`."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from typing import NamedTuple, Protocol

TopicPartition = tuple[str, int]


class Outgoing(NamedTuple):
    """A record on its way to the log. Without a partition the key decides, as Kafka's own clients do (murmur2)."""

    topic: str
    key: bytes | None
    value: bytes | None
    headers: tuple[tuple[str, bytes], ...] = ()
    partition: int | None = None
    timestamp: int | None = None


class Record(NamedTuple):
    """A record of the log, untouched. `timestamp` is in milliseconds, as Kafka keeps it."""

    topic: str
    partition: int
    offset: int
    timestamp: int
    key: bytes | None
    value: bytes | None
    headers: tuple[tuple[str, bytes], ...] = ()


class Position(NamedTuple):
    topic: str
    partition: int
    offset: int


class Subscription(Protocol):
    """A member of a consumer group. Delivery is at least once: what was not committed comes again."""

    async def poll(
        self, timeout: float = 1.0, limit: int | None = None
    ) -> Mapping[TopicPartition, Sequence[Record]]: ...

    async def commit(self, offsets: Mapping[TopicPartition, int]) -> None:
        """Each offset is the next one to read. Raises `Fenced` when the partition is no longer ours."""
        ...

    async def seek(self, partition: TopicPartition, offset: int) -> None: ...

    def assignment(self) -> frozenset[TopicPartition]: ...


class EventLog(Protocol):
    """Topics here are wire names: the caller has applied `TopicNames`."""

    async def append(self, records: Sequence[Outgoing]) -> Sequence[Position]:
        """Returns when every record is acknowledged by all in-sync replicas; order within a partition is kept."""
        ...

    def read(self, topic: str, partition: int, start: int, stop: int | None = None) -> AsyncIterator[Sequence[Record]]:
        """Committed records of [start, stop) in batches, then ends. `stop=None` means the end at the time of the call.

        Raises `MissingOffsets` where start lies below the log's first offset, so that no gap is skipped in silence.
        """
        ...

    async def starts(self, topic: str) -> Mapping[int, int]: ...

    async def ends(self, topic: str) -> Mapping[int, int]: ...

    async def offsets_at(self, topic: str, timestamp: int) -> Mapping[int, int]:
        """The first offset of each partition at or after a time in milliseconds; the end where there is none."""
        ...

    async def committed(self, group: str, topic: str) -> Mapping[int, int]: ...

    def subscribe(self, group: str, topics: Sequence[str]) -> AbstractAsyncContextManager[Subscription]: ...
