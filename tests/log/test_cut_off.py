"""Whoever is cut off while a client connects leaves no connection behind."""

from __future__ import annotations

import asyncio
import gc
import warnings
from uuid import uuid4

from rillfold.embedded.state import Endpoints
from streams.log.kafka.log import KafkaLog
from streams.log.port import TopicSpec


async def test_a_member_that_is_cut_off_while_it_joins_leaves_nothing_open(stack: Endpoints):
    topic, opened = uuid4().hex, 0
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always", ResourceWarning)
        async with KafkaLog(stack.bootstrap_servers) as log:
            await log.create([TopicSpec(topic, 1)])

            async def join() -> None:
                nonlocal opened
                async with log.subscribe(uuid4().hex, [topic]):
                    opened += 1

            for milliseconds in range(0, 60, 2):
                joining = asyncio.create_task(join())
                await asyncio.sleep(milliseconds / 1000)
                joining.cancel()
                await asyncio.wait({joining})
        await asyncio.sleep(0)
        gc.collect()
    assert opened < 30, "none was cut off"
    assert [str(warning.message) for warning in said] == []
