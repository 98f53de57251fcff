"""Begins and ends an aiokafka client, whatever becomes of its broker or of us."""

import asyncio
import logging
from typing import Any

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer

from streams.log.kafka.opened import keep_bytes

log = logging.getLogger(__name__)
# What had to be said is acknowledged or given up by then; only our leaving is left.
STOP_SECONDS = 4.0


async def start_client(client: Any) -> None:
    """Closes it again where the start fails or is cut off."""
    keep_bytes()  # before anything is fetched
    starting = asyncio.ensure_future(client.start())
    try:
        await asyncio.shield(starting)
    except BaseException:
        await close_client(client, starting)
        raise


async def close_client(client: Any, starting: asyncio.Future[None] | None = None) -> None:
    """Quiet: what went wrong was said by the call that needed the broker.

    A start that is under way may end first: cut off while it connects, aiokafka leaves the connection open.

    In a task of its own: aiokafka cancels tasks of its own and hands their end on (`Fetcher.close`). In ours that would
    look as if we had been cancelled, and hide the error that we end with.
    """
    if starting is not None:
        await asyncio.wait({starting}, timeout=STOP_SECONDS)
        starting.cancel()
        await asyncio.wait({starting}, timeout=STOP_SECONDS)
    stops = isinstance(client, AIOKafkaConsumer | AIOKafkaProducer)
    closing = asyncio.ensure_future(client.stop() if stops else client.close())
    try:
        await asyncio.wait({closing}, timeout=STOP_SECONDS)
    finally:
        if not closing.done() or closing.cancelled() or closing.exception() is not None:
            closing.cancel()
            log.info("%s did not end by itself: %r", type(client).__name__, closing)
            await _abandon(client, closing)


async def _abandon(client: Any, closing: asyncio.Future[None]) -> None:
    """What a close that broke off has left running would try to connect for as long as the loop lives."""
    sender = getattr(client, "_sender", None)
    if sender is not None and sender.sender_task is not None:
        sender.sender_task.cancel()
    network = client.client if isinstance(client, AIOKafkaProducer) else client._client
    rest = asyncio.gather(network.close(), closing, return_exceptions=True)
    await asyncio.wait({rest}, timeout=STOP_SECONDS)
