"""The two ways in: raw HTTP, byte for byte, and raw Kafka records that no client library would write."""

from __future__ import annotations

import asyncio
import struct
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import NamedTuple

from aiokafka import AIOKafkaProducer
from aiokafka.errors import KafkaError
from aiokafka.record.util import calc_crc32c

from tests.hostile.stage import Stage

ANSWER_WITHIN = 45.0
UNFINISHED_SECONDS = 2.0
"""A request that is never finished may be waited for: so long, and it is left."""
FEED_SECONDS = 1.0
"""A change feed has no end: so long it is listened to."""
READ_BYTES = 4 << 20
RETRIES = 20
HEAD_OF_A_BATCH = 61


class Answer(NamedTuple):
    status: int
    """0: the connection was closed without one, which is an answer to what is no HTTP."""
    head: bytes
    body: bytes

    def header(self, name: str) -> str | None:
        for line in self.head.decode("latin-1").split("\r\n")[1:]:
            key, _, value = line.partition(":")
            if key.lower() == name:
                return value.strip()
        return None


async def raw_http(
    url: str, line: bytes, headers: Sequence[tuple[bytes, bytes]], body: bytes, seconds: float = ANSWER_WITHIN
) -> Answer:
    """One request on one connection, as it is written here. Waits where the server asks for it."""
    answer = Answer(429, b"", b"")
    for _ in range(RETRIES):
        answer = await _once(url, line, headers, body, seconds)
        if answer.status != 429:
            break
        await asyncio.sleep(min(float(answer.header("retry-after") or 1), 2.0))
    return answer


async def _once(url: str, line: bytes, headers: Sequence[tuple[bytes, bytes]], body: bytes, seconds: float) -> Answer:
    host, _, port = url.removeprefix("http://").partition(":")
    reader, writer = await asyncio.open_connection(host, int(port), limit=READ_BYTES)
    try:
        head = b"".join(name + b": " + value + b"\r\n" for name, value in headers)
        writer.write(line + b"\r\n" + head + b"\r\n" + body)
        with suppress(ConnectionError):
            await writer.drain()
        return await _answer(reader, seconds)
    finally:
        writer.close()
        with suppress(ConnectionError):
            await writer.wait_closed()


async def _answer(reader: asyncio.StreamReader, seconds: float) -> Answer:
    try:
        async with asyncio.timeout(seconds):
            head = await reader.readuntil(b"\r\n\r\n")
    except (asyncio.IncompleteReadError, ConnectionError) as end:
        return Answer(0, b"", getattr(end, "partial", b""))
    except TimeoutError:
        if seconds == UNFINISHED_SECONDS:
            return Answer(0, b"", b"")
        raise
    endless = b"text/event-stream" in head
    body = b""
    with suppress(TimeoutError, ConnectionError):
        async with asyncio.timeout(FEED_SECONDS if endless else ANSWER_WITHIN):
            while part := await reader.read(1 << 16):
                body += part
    return Answer(int(head.split(b" ", 2)[1]), head, body)


def plain(stage: Stage, who: str | None, body: bytes, url: str, kind: bytes) -> list[tuple[bytes, bytes]]:
    """The headers that any client sends."""
    key = [(b"Authorization", f"Bearer {stage.keys[who]}".encode())] if who else []
    size = [(b"Content-Type", kind), (b"Content-Length", str(len(body)).encode())] if body else []
    return [(b"Host", url.removeprefix("http://").encode()), (b"Connection", b"close"), *key, *size]


async def by_rest(stage: Stage, topic: str, value: bytes, kind: bytes = b"application/json") -> Answer:
    line = b"POST /topics/" + topic.encode() + b" HTTP/1.1"
    return await raw_http(stage.api, line, plain(stage, "mallory", value, stage.api, kind), value)


class RawRecord(NamedTuple):
    topic: str
    value: bytes | None
    key: bytes | None = None
    headers: tuple[tuple[bytes, bytes | None], ...] = ()
    timestamp: int | None = None


class RawKafka:
    """Whatever a broker takes. What it does not take is no threat, and is named."""

    def __init__(self, producer: AIOKafkaProducer, stage: Stage) -> None:
        self._producer, self._stage = producer, stage

    @classmethod
    async def of(cls, stage: Stage) -> RawKafka:
        producer = AIOKafkaProducer(
            bootstrap_servers=stage.servers.bootstrap_servers, max_request_size=4 << 20, max_batch_size=4 << 20
        )
        await producer.start()
        return cls(producer, stage)

    async def close(self) -> None:
        await self._producer.stop()

    async def send(self, record: RawRecord) -> str | None:
        """None: it is in the log. Else why the broker did not take it."""
        topic = self._stage.names.wire(record.topic)
        partitions = await self._producer.partitions_for(topic)
        where = self._producer._partition(topic, None, record.key, record.value, record.key, record.value)
        batch = self._producer.create_batch()
        batch.append(
            timestamp=record.timestamp,
            key=record.key,
            value=record.value,
            headers=[(_spoken(name), value) for name, value in record.headers],
        )
        batch.close()
        if odd := [name for name, _ in record.headers if _spoken(name) != name.decode("utf-8", "replace")]:
            begin = HEAD_OF_A_BATCH + len(record.key or b"") + len(record.value or b"")
            batch._buffer = _renamed(bytes(batch._build()), odd, begin)
        try:
            await (await self._producer.send_batch(batch, topic, partition=where % len(partitions)))
        except KafkaError as error:
            return type(error).__name__
        return None


def _spoken(name: bytes) -> str:
    """Our client writes only text: what is none is written as so many z, and put right in the bytes."""
    try:
        return name.decode()
    except UnicodeDecodeError:
        return "z" * len(name)


def _renamed(batch: bytes, names: Sequence[bytes], begin: int) -> bytearray:
    """Header names as they are, UTF-8 or not. The checksum is made anew."""
    patched = bytearray(batch)
    for name in names:
        begin = patched.index(b"z" * len(name), begin)
        patched[begin : begin + len(name)] = name
    struct.pack_into(">I", patched, 17, calc_crc32c(bytes(patched[21:])))
    return patched


def header_pairs(given: Mapping[str, object]) -> list[tuple[bytes, bytes]]:
    return [(name.encode("latin-1"), _bytes(value)) for name, value in given.items()]


def _bytes(value: object) -> bytes:
    return value if isinstance(value, bytes) else str(value).encode("utf-8", "surrogatepass")
