"""One producer serves all of a process: what goes wrong for one who appends ends nothing of the others."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import pytest
from aiokafka import AIOKafkaProducer
from aiokafka.errors import KafkaError, KafkaTimeoutError, OutOfOrderSequenceNumber

from rillfold.embedded.state import Endpoints
from streams.errors import AppendFailed
from streams.log.kafka import log as module
from streams.log.kafka.log import KafkaLog
from streams.log.port import Outgoing, Position, TopicSpec


@pytest.mark.parametrize(("error", "anew"), [(OutOfOrderSequenceNumber, True), (KafkaTimeoutError, False)])
async def test_an_append_under_way_outlives_the_failure_of_another(
    stack: Endpoints, monkeypatch: pytest.MonkeyPatch, error: type[KafkaError], anew: bool
) -> None:
    topic, failed, used = f"shared-{error.__name__}", asyncio.Event(), list[AIOKafkaProducer]()
    plain = module.append_in_batches

    async def sent(producer: AIOKafkaProducer, records: Sequence[Outgoing], placed: Any) -> Sequence[Position]:
        used.append(producer)
        if records[0].value == b"fails":
            raise error
        if records[0].value == b"waits":
            await failed.wait()
        return await plain(producer, records, placed)

    monkeypatch.setattr(module, "append_in_batches", sent)
    async with KafkaLog(stack.bootstrap_servers) as log:
        await log.create([TopicSpec(topic, 1)])
        waits = asyncio.create_task(log.append([Outgoing(topic, b"k", b"waits")]))
        while not used:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
        with pytest.raises(AppendFailed, match=error.__name__):
            await log.append([Outgoing(topic, b"k", b"fails")])
        (third,) = await log.append([Outgoing(topic, b"k", b"goes on")])
        failed.set()
        assert [place.offset for place in await waits] == [1] and third.offset == 0
        assert (used[2] is not used[0]) == anew
        assert used[0]._closed == anew, "the last who used it closes it"
        assert not used[2]._closed
