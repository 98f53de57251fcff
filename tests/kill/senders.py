"""Those who write to the log while everything dies: the producers of a seed's traffic, and whoever answers jobs."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Iterable
from itertools import chain
from typing import Any

from aiokafka import AIOKafkaProducer
from aiokafka.errors import KafkaError

from schemas.codec.codec import decode
from schemas.envelope import Event, Origin, caused_by
from schemas.errors import Retry
from schemas.inference import InferenceCompleted, InferenceFailed, InferenceRequested
from schemas.tools import ToolCallProposed, ToolReturned
from schemas.topics import TopicNames
from streams.log.kafka.log import KafkaLog
from streams.log.outgoing import to_outgoing
from streams.log.port import Outgoing, Record
from tests.kill.injected import Place, records
from tests.kill.traffic import Burst, Traffic
from tests.kill.world import History

PAUSE = 0.5
ASKING = "inference-request", "tool-call"


class Sender:
    """Sends a seed's bursts, never further than it is allowed to. What may have failed is sent again: a repeat."""

    def __init__(self, log: KafkaLog, servers: str, traffic: Traffic, count: int, history: History) -> None:
        self._log, self._servers, self._traffic, self._count = log, servers, traffic, count
        self._history = history
        self._transactions: AIOKafkaProducer | None = None
        self.allowed, self.sent = 0.0, 0
        self._waits = self._ended = False
        self.over = True
        """Nobody asks for more than all."""

    @property
    def idle(self) -> bool:
        """Nothing is on its way, and nothing follows until more is allowed."""
        return self._ended or (self._waits and not self._may)

    @property
    def _may(self) -> bool:
        return self.sent < self.allowed * self._count

    def one_more(self) -> None:
        """One burst, whatever is allowed."""
        self.allowed = max(self.allowed, (self.sent + 1) / self._count)

    async def run(self) -> None:
        bursts = chain(self._traffic.bursts(), self._traffic.beyond())
        while await self._asked_for_more():
            burst = next(bursts)
            await self._patiently(burst)
            if burst.how != "aborted":
                self.sent += len(burst.records)
        if self._transactions is not None:
            await self._transactions.stop()
        self._ended = True

    async def _asked_for_more(self) -> bool:
        """Whatever is made is sent: the ledger has it from then on."""
        while not self._may:
            if self.over and self.sent >= self._count:
                return False
            self._waits = True
            await asyncio.sleep(0.05)
        self._waits = False
        return True

    async def close(self) -> None:
        await self._patiently(self._traffic.closing())

    async def _patiently(self, burst: Burst) -> None:
        while True:
            try:
                if burst.how == "plain":
                    await self._log.append(burst.records)
                else:
                    await self._in_transaction(burst)
                return
            except (Retry, KafkaError, OSError) as error:
                self._history.add("sent again", burst.how, error=f"{type(error).__name__}: {error}"[:200])
                await self._drop()
                await asyncio.sleep(PAUSE)

    async def _in_transaction(self, burst: Burst) -> None:
        producer = await self._transactional()
        await producer.begin_transaction()
        await asyncio.gather(*[await _send(producer, record) for record in burst.records])
        if burst.how == "committed":
            await producer.commit_transaction()
        else:
            await producer.abort_transaction()
        self._history.counts[f"transaction {burst.how}"] = self._history.counts.get(f"transaction {burst.how}", 0) + 1

    async def _transactional(self) -> AIOKafkaProducer:
        if self._transactions is None:
            self._transactions = AIOKafkaProducer(
                bootstrap_servers=self._servers, transactional_id="kill-sender", transaction_timeout_ms=10_000
            )
            await self._transactions.start()
        return self._transactions

    async def _drop(self) -> None:
        if self._transactions is not None:
            producer, self._transactions = self._transactions, None
            try:
                async with asyncio.timeout(5):
                    await producer.stop()
            except Exception as error:
                self._history.add("dropped a producer", error=f"{type(error).__name__}")


async def _send(producer: AIOKafkaProducer, record: Outgoing) -> asyncio.Future[object]:
    sent: asyncio.Future[object] = await producer.send(
        record.topic, record.value, record.key, record.partition, headers=list(record.headers)
    )
    return sent


class World:
    """The model and the tools: each question gets its answer at least once, a repeated one the same answer."""

    def __init__(self, log: KafkaLog, names: TopicNames, history: History) -> None:
        self._log, self._names, self._history = log, names, history
        self._answered: dict[Place, int] = {}
        """Of each partition, up to where."""

    async def answer(self) -> None:
        topics = [self._names.wire(topic) for topic in ASKING]
        while True:
            try:
                async with self._log.subscribe(f"{self._names.prefix}kill-world", topics) as member:
                    while True:
                        polled = await member.poll(0.5)
                        answers = [reply for came in polled.values() for reply in _answers(came)]
                        await self._log.append([to_outgoing(reply, self._names) for reply in answers])
                        told = {tp: came[-1].offset + 1 for tp, came in polled.items() if came}
                        self._answered |= told
                        await member.commit(told)
            except (Retry, KafkaError, OSError) as error:
                self._history.add("world tries again", error=f"{type(error).__name__}: {error}"[:200])
                await asyncio.sleep(PAUSE)

    async def has_answered(self) -> bool:
        """No question stands in the log without its answer."""
        for topic in map(self._names.wire, ASKING):
            for partition in await self._log.ends(topic):
                place = topic, partition
                async for _ in records(self._log, place, self._answered.get(place, 0)):
                    return False
        return True


def _answers(records: Iterable[Record]) -> Iterable[Event]:
    for record in records:
        event = decode(record.value, Origin(record.topic, record.partition, record.offset), record.timestamp)
        if isinstance(event, InferenceRequested):
            yield _model(event)
        elif isinstance(event, ToolCallProposed):
            yield _tool(event)


def _model(asked: InferenceRequested) -> Event:
    """Calls the tool, then says what it answered; by chance of the id it fails or calls what it must not."""
    chance = hashlib.sha256(asked.id.encode()).digest()[0]
    own = caused_by(asked, "answer", asked.time)
    if chance < 10:
        return InferenceFailed(**own, request=asked.id, job=asked.job, reason="model_away")
    replies = [message.content for message in asked.messages if message.role == "tool"]
    order = asked.messages[0].content.rsplit(" ", 1)[-1]
    name = "wipe" if chance > 245 else "refund"
    call = f'<tool_call>\n{{"name": "{name}", "arguments": {{"order": "{order}"}}}}\n</tool_call>'
    return InferenceCompleted(
        **own, request=asked.id, job=asked.job, text=replies[0] if replies else call, finish_reason="stop",
        adapter=asked.adapter, adapter_version=1, model="m", prompt_tokens=5, completion_tokens=7,
    )  # fmt: skip


def _tool(call: ToolCallProposed) -> Event:
    ok = hashlib.sha256(call.id.encode()).digest()[0] > 15
    fields: dict[str, Any] = {
        "call": call.call,
        "job": call.job,
        "tool": call.tool,
        "ok": ok,
        "status": 200 if ok else 503,
    }
    reason = "" if ok else "server_error"
    return ToolReturned(**caused_by(call, "returned", call.time), **fields, body=f"did {call.arguments}", reason=reason)
