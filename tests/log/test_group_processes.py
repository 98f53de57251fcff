"""Group members that really die and really sleep: child processes under SIGKILL and SIGSTOP, on the real broker."""

from __future__ import annotations

import asyncio
import signal
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest

from schemas.topics import TopicNames
from streams.log.kafka.log import KafkaLog
from streams.log.port import Outgoing, TopicSpec

# As short as brokers let it be.
SESSION = 6.0
MEMBER = """
import asyncio, os, signal, sys
from schemas.errors import RillfoldError
from streams.log.kafka.log import KafkaLog

async def main(servers, topic):
    async with KafkaLog(servers, session_timeout=6.0) as log, log.subscribe(f"{topic}-g", [topic]) as member:
        held = {}
        while not held:
            held = await member.poll(1.0)
        print("holds", *[record.value.decode() for batch in held.values() for record in batch], flush=True)
        # Falls asleep between two lines: nothing of it can join the group again before it commits.
        os.kill(os.getpid(), signal.SIGSTOP)
        try:
            await member.commit({place: records[-1].offset + 1 for place, records in held.items()})
            print("committed", flush=True)
        except RillfoldError as error:
            print(type(error).__name__, flush=True)

asyncio.run(main(*sys.argv[1:]))
"""
Start = Callable[[], Awaitable[asyncio.subprocess.Process]]


@pytest.fixture
async def kafka(stack) -> AsyncIterator[KafkaLog]:
    async with KafkaLog(stack.bootstrap_servers, session_timeout=SESSION) as log:
        yield log


@pytest.fixture
async def topic(kafka: KafkaLog, names: TopicNames) -> str:
    name = names.wire("processes")
    await kafka.create([TopicSpec(name, 1)])
    await kafka.append([Outgoing(name, None, str(n).encode()) for n in range(4)])
    return name


@pytest.fixture
async def holder(stack, topic: str) -> AsyncIterator[asyncio.subprocess.Process]:
    """A process that has polled everything and committed nothing."""
    child = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", MEMBER, stack.bootstrap_servers, topic),
        stdout=asyncio.subprocess.PIPE,
        cwd=Path(__file__).parents[2],
    )
    assert child.stdout is not None
    assert await child.stdout.readline() == b"holds 0 1 2 3\n"
    yield child
    if child.returncode is None:
        child.kill()
    await child.communicate()


async def taken_over(kafka: KafkaLog, topic: str, commit: int) -> list[bytes]:
    """What the next member gets once the broker has given up the first one."""
    async with kafka.subscribe(f"{topic}-g", [topic]) as member:
        while not (polled := await member.poll(1.0)):
            pass
        await member.commit({(topic, 0): commit})
        return [record.value or b"" for record in polled[topic, 0]]


async def test_what_a_killed_member_held_is_delivered_again(kafka, topic, holder) -> None:
    holder.send_signal(signal.SIGKILL)
    assert await taken_over(kafka, topic, 4) == [b"0", b"1", b"2", b"3"]


async def test_a_member_that_slept_through_its_session_commits_nothing(kafka, topic, holder) -> None:
    assert await taken_over(kafka, topic, 2) == [b"0", b"1", b"2", b"3"]
    holder.send_signal(signal.SIGCONT)
    assert await holder.stdout.readline() == b"Fenced\n"
    assert await kafka.committed(f"{topic}-g", topic) == {0: 2}
