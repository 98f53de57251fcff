"""Whoever is told to stop ends, also where nobody is there any more to whom he could say that he leaves."""

from __future__ import annotations

import asyncio
import signal
import sys
from pathlib import Path

from rillfold.embedded.stack import running
from schemas.topics import TopicNames
from streams.log.kafka import admin
from streams.log.kafka.log import KafkaLog
from tests.support.worker import WorkerProcess, external

ENDS_WITHIN = 45.0


async def test_a_fold_that_is_stopped_while_its_broker_is_away_ends(tmp_path: Path) -> None:
    """aiokafka hands the end of a fetch that waits to be tried again on to whoever closes it."""
    with running(tmp_path / "stack", postgres=False) as endpoints:
        async with KafkaLog(endpoints.bootstrap_servers) as log:
            await admin.create(log, TopicNames())
        worker = WorkerProcess("a", ("worker", "fold"), external(endpoints.bootstrap_servers, "", tmp_path), tmp_path)
        worker.start().until_ready()
    try:
        async with asyncio.timeout(ENDS_WITHIN):
            while "Unable to update" not in worker.said():  # noqa: ASYNC110
                await asyncio.sleep(0.1)
        worker.send(signal.SIGTERM)
        assert worker.ended(ENDS_WITHIN) == 0
    finally:
        worker.close()
        sys.stdout.write(worker.log())
