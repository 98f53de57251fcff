"""The bridge dies by kill -9 in the middle of a call: the next one finishes it, with one effect at the company."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from rillfold.embedded.stack import Endpoints
from schemas.codec.codec import decode
from schemas.company import ToolAuth, ToolRegistered
from schemas.envelope import Origin
from schemas.jobs import JobWithdrawn
from schemas.tools import ToolCallProposed, ToolReturned
from schemas.topics import TOPICS, TopicNames
from streams.bridge.endpoint import origin_of
from streams.bridge.secrets import FileSecrets, SecretStr
from streams.bridge.tool_caller import key_of
from streams.log.kafka.log import KafkaLog
from streams.log.outgoing import to_outgoing
from streams.log.port import TopicSpec
from tests.support.worker import WorkerProcess, external

NOW = 1_700_000_000_000_000
TOKEN = "tok_canary_kill"
SECONDS = 120


@pytest.fixture
async def log(stack: Endpoints) -> AsyncIterator[KafkaLog]:
    """A process can only be killed on a log that outlives it."""
    async with KafkaLog(stack.bootstrap_servers) as kafka:
        yield kafka


@pytest.fixture
async def topics(log: KafkaLog, names: TopicNames) -> None:
    """All there are: the secret must stand on none."""
    await log.create([TopicSpec(names.wire(topic.name), topic.partitions) for topic in TOPICS])


def files_with(folder: Path, text: bytes) -> list[str]:
    return [str(file) for file in folder.rglob("*") if file.is_file() and text in file.read_bytes()]


async def holding(log: KafkaLog, names: TopicNames, folder: Path, text: bytes) -> list[str]:
    """Every record of every topic, and every file that the bridge left, in which the text stands."""
    found = files_with(folder, text)
    for wire in (names.wire(topic.name) for topic in TOPICS):
        for partition, start in (await log.starts(wire)).items():
            async for records in log.read(wire, partition, start):
                found += [f"{wire}/{r.partition}/{r.offset}" for r in records if text in repr(r).encode()]
    return found


async def test_one_effect_and_one_answer(log: KafkaLog, names, stack, api, tmp_path, topics) -> None:
    url = f"{api.base}/slow"
    ref = FileSecrets(tmp_path / "secrets").put("acme", origin_of(url), SecretStr(TOKEN))
    tool = ToolRegistered(
        id="t1", company="acme", time=NOW, correlation="t1", name="refund", description="", endpoint=url,
        parameters='{"properties":{"order":{"type":"string"}}}', auth=ToolAuth(kind="bearer", secret_ref=ref),
    )  # fmt: skip
    call = ToolCallProposed(
        id="c1", company="acme", time=NOW, correlation="r1", call="c1", job="j1", tool="refund",
        arguments='{"order":"A1"}',
    )  # fmt: skip
    settings = external(stack.bootstrap_servers, names.prefix, tmp_path, ALLOW_PRIVATE_TOOLS="true")
    bridge = WorkerProcess("bridge", ("worker", "bridge"), settings, tmp_path)
    wire = names.wire("tool-result")
    async with asyncio.timeout(SECONDS):
        await asyncio.to_thread(bridge.start().until_ready)
        await log.append([to_outgoing(event, names) for event in (tool, call)])
        await api.arrived.wait()
        bridge.kill()
        api.gate.set()
        await asyncio.to_thread(bridge.start().until_ready)
        try:
            async with log.subscribe(f"{names.prefix}test", (wire,)) as results:
                while not (found := [r for records in (await results.poll()).values() for r in records]):
                    pass
        finally:
            bridge.send(signal.SIGTERM)
            assert await asyncio.to_thread(bridge.ended) == 0
    (record,) = found
    answer = decode(record.value, Origin(wire, record.partition, record.offset), record.timestamp)
    assert isinstance(answer, ToolReturned)
    assert (answer.ok, answer.call, sum((await log.ends(wire)).values())) == (True, "c1", 1)
    assert api.effects == {key_of("acme", "c1"): {"order": "A1"}}
    assert [request["headers"]["Authorization"] for request in api.requests] == [f"Bearer {TOKEN}"] * 2
    assert await holding(log, names, tmp_path, TOKEN.encode()) == []
    assert await holding(log, names, tmp_path, ref.encode()) != []


async def test_what_is_taken_back_while_the_bridge_is_dead_is_not_called_again(
    log: KafkaLog, names, stack, api, tmp_path, topics
) -> None:
    """One call was under way when it died, another came meanwhile: their jobs are taken back before it returns."""
    about = {"company": "acme", "time": NOW, "correlation": "r1"}
    tool = ToolRegistered(
        id="t1", **about, name="refund", description="", endpoint=f"{api.base}/slow", parameters="{}",
        auth=ToolAuth(kind="none"),
    )  # fmt: skip
    calls = [
        ToolCallProposed(id=f"c{n}", **about, call=f"c{n}", job=f"j{n}", tool="refund", arguments="{}") for n in (1, 2)
    ]
    withdrawn = [JobWithdrawn(id=f"w{n}", **about, job=f"j{n}") for n in (1, 2)]
    settings = external(stack.bootstrap_servers, names.prefix, tmp_path, ALLOW_PRIVATE_TOOLS="true")
    bridge = WorkerProcess("bridge", ("worker", "bridge"), settings, tmp_path)
    wire = names.wire("tool-result")
    async with asyncio.timeout(SECONDS):
        await asyncio.to_thread(bridge.start().until_ready)
        await log.append([to_outgoing(event, names) for event in (tool, calls[0])])
        await api.arrived.wait()
        bridge.kill()
        await log.append([to_outgoing(event, names) for event in (*withdrawn, calls[1])])
        await asyncio.to_thread(bridge.start().until_ready)
        try:
            while sum((await log.ends(wire)).values()) < 2:  # noqa: ASYNC110  nobody tells
                await asyncio.sleep(0.1)
        finally:
            bridge.send(signal.SIGTERM)
            assert await asyncio.to_thread(bridge.ended) == 0
    found = [
        decode(record.value, record.origin, record.timestamp)
        for partition, start in (await log.starts(wire)).items()
        async for records in log.read(wire, partition, start)
        for record in records
    ]
    assert sorted((answer.call, answer.reason.partition(":")[0]) for answer in found) == [
        ("c1", "withdrawn"),
        ("c2", "withdrawn"),
    ]
    assert len(api.requests) == 1
