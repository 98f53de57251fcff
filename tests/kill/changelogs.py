"""All that the changelogs of a seed ever held: the broker's cleaner runs beside, and takes away what was replaced."""

from __future__ import annotations

import asyncio
import json
import struct
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import BinaryIO

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType
from aiokafka.errors import KafkaError, for_code

from streams.log.kafka.client import close_client, start_client
from streams.log.kafka.log import KafkaLog
from streams.log.port import Record
from streams.state.changelog import CLAIM
from streams.state.prepare import COMPACTED
from tests.kill.world import TooLate, crowding, until_async

SEEN_WITHIN_MS = 20_000
"""So long nothing is cleaned away: we have read it by then, also where the broker was dead meanwhile."""
LOOK_AROUND = 1.0
CAUGHT_UP_WITHIN = 120.0
_HEAD = struct.Struct("<qqii")


class Changelogs:
    """Has each changelog cleaned as soon as it stands, and writes down what comes before that is cleaned away."""

    def __init__(self, servers: str, prefix: str, folder: Path) -> None:
        self._servers, self._prefix, self._folder = servers, f"{prefix}rillfold-", folder
        self._crowded = min(2.0, crowding())  # a short seed is over soon, and something must be cleaned in it
        self._files: dict[TopicPartition, BinaryIO] = {}
        self._next: dict[TopicPartition, int] = {}
        self.missed: list[str] = []
        """What was cleaned away before it was read: then there is no verdict."""
        self.owners: dict[tuple[str, int], str] = {}
        """Who claimed each partition last."""
        folder.mkdir()

    async def follow(self) -> None:
        """Until it is cancelled."""
        while True:
            try:
                await self._follow()
            except (KafkaError, OSError):
                await asyncio.sleep(0.2)

    async def _follow(self) -> None:
        consumer = AIOKafkaConsumer(
            bootstrap_servers=self._servers, enable_auto_commit=False, auto_offset_reset="earliest"
        )
        await start_client(consumer)
        try:
            await self._read(consumer)
        finally:
            await close_client(consumer)

    async def _read(self, consumer: AIOKafkaConsumer) -> None:
        looked, clock = 0.0, asyncio.get_running_loop().time
        while True:
            if clock() - looked > LOOK_AROUND:
                await self._look_around(consumer)
                looked = clock()
            if not consumer.assignment():
                await asyncio.sleep(0.1)
                continue
            for tp, records in (await consumer.getmany(timeout_ms=200)).items():
                for record in records:
                    self._put(tp, record.offset, record.timestamp, record.key or b"", record.value)

    async def _look_around(self, consumer: AIOKafkaConsumer) -> None:
        topics = {topic for topic in await consumer.topics() if topic.startswith(self._prefix)}
        changelogs = {topic for topic in topics if topic.endswith("-changelog")}
        if not (changelogs - {tp.topic for tp in self._next}) and len(consumer.assignment()) == len(self._next):
            return
        for tp in await self._have_cleaned(sorted(changelogs)):
            self._next.setdefault(tp, 0)
        consumer.assign(list(self._next))
        for tp, next_ in self._next.items():
            consumer.seek(tp, next_)

    async def _have_cleaned(self, changelogs: list[str]) -> list[TopicPartition]:
        """Returns all their partitions: a consumer knows those of the topics alone that it reads already."""
        cleaned = COMPACTED | {"segment.ms": "3000", "min.compaction.lag.ms": str(int(SEEN_WITHIN_MS * self._crowded))}
        wanted = [ConfigResource(ConfigResourceType.TOPIC, topic, cleaned) for topic in changelogs]
        broker = AIOKafkaAdminClient(bootstrap_servers=self._servers)
        await broker.start()
        try:
            for response in await broker.alter_configs(wanted):
                for code, message, *_ in response.resources:
                    if code:
                        raise for_code(code)(message)
            described = await broker.describe_topics(changelogs)
            return [TopicPartition(each["topic"], p["partition"]) for each in described for p in each["partitions"]]
        finally:
            await broker.close()

    def _put(self, tp: TopicPartition, offset: int, timestamp: int, key: bytes, value: bytes | None) -> None:
        if offset < (next_ := self._next[tp]):
            return
        if offset > next_:
            self.missed.append(f"{tp.topic}/{tp.partition} from {next_} to {offset}")
        self._next[tp] = offset + 1
        if key == CLAIM:
            self.owners[tp.topic, tp.partition] = json.loads(value or b"")["owner"]
        if tp not in self._files:
            self._files[tp] = self._path(tp).open("wb")
        head = _HEAD.pack(offset, timestamp, len(key), -1 if value is None else len(value))
        self._files[tp].write(head + key + (value or b""))

    def _path(self, tp: TopicPartition) -> Path:
        return self._folder / f"{tp.topic}-{tp.partition}"

    @property
    def names(self) -> set[str]:
        return {tp.topic for tp in self._next}

    async def ends(self, log: KafkaLog, topics: Iterable[str]) -> Mapping[TopicPartition, int]:
        """Of those that stand."""
        there = await log.describe(list(topics))
        return {TopicPartition(topic, p): end for topic in there for p, end in (await log.ends(topic)).items()}

    def reach(self, ends: Mapping[TopicPartition, int]) -> bool:
        return all(self._next.get(tp, 0) >= end for tp, end in ends.items())

    async def read_to_their_ends(self, log: KafkaLog, changelogs: Iterable[str]) -> None:
        """Raises where something was missed."""
        ends = await self.ends(log, changelogs)

        async def reached() -> bool:
            return self.reach(ends)

        await until_async("changelogs are read to their ends", CAUGHT_UP_WITHIN, reached)
        if self.missed:
            raise TooLate(f"cleaned away before it was read, so that nobody can judge: {self.missed[:5]}")
        for file in self._files.values():
            file.flush()

    def history(self, topic: str, partition: int) -> list[Record]:
        """All that ever stood there, with nothing cleaned away."""
        return list(self._records(TopicPartition(topic, partition)))

    def _records(self, tp: TopicPartition) -> Iterator[Record]:
        if tp not in self._files:
            return
        with self._path(tp).open("rb") as file:
            while head := file.read(_HEAD.size):
                offset, timestamp, key, value = _HEAD.unpack(head)
                key = file.read(key)
                yield Record(tp.topic, tp.partition, offset, timestamp, key, None if value < 0 else file.read(value))

    def close(self) -> None:
        for file in self._files.values():
            file.close()
