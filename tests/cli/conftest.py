"""A real broker with the topics of a company, and the command line as a person uses it."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import AsyncIterator, Callable

import pytest

from rillfold.embedded.state import Endpoints
from schemas.topics import TopicNames
from streams.log.kafka.log import KafkaLog
from tests.support.training import tiny_base

__all__ = ["tiny_base"]

Command = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
async def kafka(stack: Endpoints) -> AsyncIterator[KafkaLog]:
    async with KafkaLog(stack.bootstrap_servers, session_timeout=6.0) as log:
        yield log


@pytest.fixture
def rillfold(stack: Endpoints, names: TopicNames) -> Command:
    """`rillfold("dlq", "list")`: a process of its own, that knows this test's topics alone."""
    environment = {
        **os.environ,
        "RILLFOLD_PROVIDER": "external",
        "RILLFOLD_BOOTSTRAP_SERVERS": stack.bootstrap_servers,
        "RILLFOLD_TOPIC_PREFIX": names.prefix,
    }

    def command(*arguments: str) -> subprocess.CompletedProcess[str]:
        line = [sys.executable, "-m", "rillfold", *arguments]
        nobody = subprocess.DEVNULL
        return subprocess.run(line, env=environment, stdin=nobody, capture_output=True, text=True, timeout=120)

    return command
