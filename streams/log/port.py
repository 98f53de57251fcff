"""The port to the event log. Two backends keep its contract: `streams.log.memory` and `streams.log.kafka.log`."""

from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from typing import NamedTuple, Protocol

from schemas.envelope import Origin
from streams.errors import UnknownTopic
from streams.fairness.slices import unheard

TopicPartition = tuple[str, int]
Learn = Callable[[Iterable[bytes | None]], Awaitable[None]]
"""Called with values before they are decoded: returns when a schema registry has told what it knows of them."""

BATCH_LIMIT = 1 << 20
"""Kafka's default for `max.message.bytes`, less a few bytes: a whole record batch with its overhead."""
OVERHEAD = 48_576
HEADER_BYTES = 64
"""What Python needs for a record's header beside its text: there may be many, and all of them empty."""
WEEK = "604800000"
"""In milliseconds, as a topic's setting. Kafka's default for `segment.ms`."""


async def nothing_to_learn(_values: Iterable[bytes | None]) -> None:
    """Where no registry is named: a schema id is unknown, and its record goes to the dead letters."""


class Outgoing(NamedTuple):
    """A record on its way to the log. Without a partition the key decides, as Kafka's own clients do (murmur2)."""

    topic: str
    key: bytes | None
    value: bytes | None
    headers: tuple[tuple[str, bytes], ...] = ()
    partition: int | None = None
    timestamp: int | None = None


def size_of(record: Outgoing) -> int:
    headers = sum(len(name) + len(value) for name, value in record.headers) if record.headers else 0
    return len(record.key or b"") + len(record.value or b"") + headers


class Record(NamedTuple):
    """A record of the log, untouched. `timestamp` is in milliseconds, as Kafka keeps it."""

    topic: str
    partition: int
    offset: int
    timestamp: int
    key: bytes | None
    value: bytes | None
    headers: tuple[tuple[str, bytes], ...] = ()

    @property
    def origin(self) -> Origin:
        """With the topic as on the wire: ids that hang on it are the same for whoever reads the record."""
        return Origin(self.topic, self.partition, self.offset)


class TopicSpec(NamedTuple):
    """A topic as it should stand on the broker. `config` holds Kafka's own names (`retention.ms`, `cleanup.policy`)."""

    name: str
    partitions: int
    config: Mapping[str, str] = {}


def limit_of(spec: TopicSpec) -> int:
    """Bytes of key, value and headers that one record of the topic may have."""
    return record_limit(int(spec.config.get("max.message.bytes", BATCH_LIMIT)))


def record_limit(batch_limit: int) -> int:
    return batch_limit - OVERHEAD


class Position(NamedTuple):
    topic: str
    partition: int
    offset: int


class Extent(NamedTuple):
    """The offsets that a partition holds: [first, end)."""

    first: int
    end: int

    def reaches(self, offset: int) -> bool:
        """Whoever has read up to there can go on there."""
        return self.first <= offset <= self.end


class Subscription(Protocol):
    """A member of a consumer group. Delivery is at least once: what was not committed comes again.

    A group that never committed begins at the first offset. `MissingOffsets` where its commit lies below that.
    """

    async def poll(self, timeout: float = 1.0, limit: int | None = None) -> Mapping[TopicPartition, Sequence[Record]]:
        """Whatever is there, at most `limit` records; empty when nothing came within `timeout` seconds."""
        ...

    async def commit(self, offsets: Mapping[TopicPartition, int]) -> None:
        """Each offset is the next one to read. Raises `Fenced` when the partition is no longer ours."""
        ...

    async def committed(self) -> Mapping[TopicPartition, int]:
        """Where the group would begin in each of our partitions if we died now."""
        ...

    async def seek(self, partition: TopicPartition, offset: int) -> None: ...

    def assignment(self) -> frozenset[TopicPartition]: ...

    def generation(self) -> int:
        """The group's own, one higher whenever partitions are given out anew: what was known of them may be out of
        date, owner or not."""
        ...


class Reached(NamedTuple):
    """How far a consumer group has come: of each partition the next offset to read."""

    group: str
    offsets: Mapping[TopicPartition, int]


class Alone(Protocol):
    """The one appender of its name. What an earlier one appended stands in the log when this one is there, and what
    its group had reached is committed; what it still wants to append is refused: `ShutOut`."""

    async def append(self, records: Sequence[Outgoing], reached: Reached | None = None) -> Sequence[Position]:
        """All of them are read by everybody from now on, or none ever is. `reached` is committed with them or not at
        all; whoever asks the group may hear of it a moment later."""
        ...


class EventLog(Protocol):
    """Topics here are wire names: the caller has applied `TopicNames`. An absent topic raises `UnknownTopic`."""

    async def create(self, topics: Sequence[TopicSpec]) -> Sequence[str]:
        """Makes those that are absent and returns their names; leaves the others as they are."""
        ...

    async def describe(self, topics: Sequence[str]) -> Mapping[str, TopicSpec]:
        """How they stand on the broker, with every setting that it tells. Absent ones are left out."""
        ...

    async def append(self, records: Sequence[Outgoing]) -> Sequence[Position]:
        """Returns when every record is acknowledged by all in-sync replicas; order within a partition is kept.

        Positions stand in the order of `records`. Raises `TooLarge` before anything is sent. After any other error
        some records may stand in the log: appending again is safe for whoever tells events apart by their id.
        """
        ...

    def read(
        self, topic: str, partition: int, start: int, stop: int | None = None, beat: Callable[[], None] = unheard
    ) -> AsyncIterator[Sequence[Record]]:
        """Committed records of [start, stop) in batches, then ends. `stop=None` means the end at the time of the call.

        Raises `MissingOffsets` where the log does not reach down to start or up to stop, so that no loss is skipped
        in silence. Offsets within that hold no record (compaction, aborted transactions) are not a loss; there may be
        millions, and `beat` says that it gets on.
        """
        ...

    async def starts(self, topic: str) -> Mapping[int, int]:
        """The first offset of each partition; the keys are the topic's partitions."""
        ...

    async def ends(self, topic: str) -> Mapping[int, int]:
        """One past the last committed offset of each partition."""
        ...

    async def offsets_at(self, topic: str, timestamp: int) -> Mapping[int, int]:
        """The first offset of each partition at or after a time in milliseconds; the end where there is none."""
        ...

    async def committed(self, group: str, topic: str) -> Mapping[int, int]:
        """Only the partitions on which the group has committed."""
        ...

    def subscribe(self, group: str, topics: Sequence[str]) -> AbstractAsyncContextManager[Subscription]: ...

    def alone(self, name: str) -> AbstractAsyncContextManager[Alone]: ...


async def ends_of(log: EventLog, topics: Iterable[str]) -> tuple[Mapping[TopicPartition, int], Mapping[str, str]]:
    """Where topics end by now, and which of them are not there any more, each with what is to be said of it."""
    ends, gone = dict[TopicPartition, int](), dict[str, str]()
    for topic in sorted(set(topics)):
        try:
            ends |= {(topic, partition): end for partition, end in (await log.ends(topic)).items()}
        except UnknownTopic as error:
            gone[topic] = str(error)
    return ends, gone


async def extents(log: EventLog, topic: str) -> Mapping[int, Extent]:
    """Of each partition, the first offset and one past the last that is committed."""
    ends = await log.ends(topic)
    return {partition: Extent(first, ends[partition]) for partition, first in (await log.starts(topic)).items()}


async def records_in(
    log: EventLog,
    topic: str,
    partition: int,
    start: int,
    stop: int | None = None,
    beat: Callable[[], None] = unheard,
) -> AsyncIterator[Record]:
    """What `read` gives, record by record; nothing where `stop` is not above `start`."""
    if stop is None or start < stop:
        async for batch in log.read(topic, partition, start, stop, beat):
            for record in batch:
                yield record
