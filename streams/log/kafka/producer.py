"""The Python client for whoever produces: typed events or plain dicts in, acknowledged positions out."""

import asyncio
import time
from collections.abc import Iterable, Sequence
from contextlib import AsyncExitStack
from typing import Self
from uuid import uuid4

from schemas.topics import TopicNames
from streams.log.kafka.log import KafkaLog
from streams.log.outgoing import Given, record_of
from streams.log.port import EventLog, Outgoing, Position

# So many records are prepared before the event loop gets a turn to move bytes.
SLICE = 250
BATCH = 4000


class Producer:
    """`async with Producer("localhost:9092") as producer: await producer.send({...})`.

    Takes the bootstrap servers of a Kafka, or a log that is open already and stays open.
    """

    def __init__(self, log: EventLog | str, names: TopicNames | None = None) -> None:
        self._closing = AsyncExitStack()
        if isinstance(log, str):
            log = KafkaLog(log)
            self._closing.push_async_callback(log.close)
        self._log: EventLog = log
        self._names = names or TopicNames()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._closing.aclose()

    async def send(self, event: Given) -> Position:
        """Returns where it stands, once all in-sync replicas have it.

        Raises `Unusable` for what is no event, `TooLarge` for what no broker takes. A dict may leave out id, time,
        version and correlation; give your own id if you may have to send it again.
        """
        (position,) = await self._log.append([self.record(event)])
        return position

    async def send_many(self, events: Iterable[Given]) -> Sequence[Position]:
        """All of them, in order, in batches. Validates the next batch while the last one is on its way.

        Raises at the first that is no event; those before it are in the log then, those after it are not.
        """
        positions: list[Position] = []
        pipeline = Pipeline(self._log)
        prepared: list[Outgoing] = []
        try:
            for given in events:
                prepared.append(self.record(given))
                if len(prepared) == SLICE:
                    positions += await pipeline.put(prepared)
                    prepared = []
        finally:
            positions += await pipeline.put(prepared)
            positions += await pipeline.flush()
        return positions

    def record(self, given: Given) -> Outgoing:
        """What `send` would append: key, topic and Avro bytes."""
        return record_of(given, lambda: str(uuid4()), time.time_ns() // 1000, self._names)


class Pipeline:
    """Appends in order with one batch on its way while the next is prepared. After an error it holds nothing."""

    def __init__(self, log: EventLog) -> None:
        self._log = log
        self._waiting: list[Outgoing] = []
        self._flying: asyncio.Task[Sequence[Position]] | None = None

    async def put(self, records: Sequence[Outgoing]) -> Sequence[Position]:
        """Positions of what has been acknowledged since the last call."""
        self._waiting += records
        await asyncio.sleep(0)
        return await self._turn() if len(self._waiting) >= BATCH else ()

    async def flush(self) -> Sequence[Position]:
        return [*await self._turn(), *await self._turn()]

    async def _turn(self) -> Sequence[Position]:
        """The last batch has landed; the next one takes off."""
        flying, self._flying = self._flying, None
        waiting, self._waiting = self._waiting, []
        landed = await flying if flying is not None else ()
        if waiting:
            self._flying = asyncio.create_task(self._log.append(waiting))
            await asyncio.sleep(0)
        return landed
