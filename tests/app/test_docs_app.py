"""Every block of docs/app.md runs, in the order of the page, by the commands that stand there."""

from __future__ import annotations

import re
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from rillfold.embedded.state import Endpoints
from schemas.topics import TopicNames
from tests.support.pages import ROOT, blocks, ran, surroundings
from tests.support.worker import WorkerProcess, external

SERVERS = "rillfold up"
"""The suite has some already."""


@pytest.fixture
def environment(stack: Endpoints, names: TopicNames, tmp_path: Path) -> dict[str, str]:
    assert stack.postgres_dsn is not None
    command = tmp_path / "bin" / "rillfold"
    command.parent.mkdir()
    command.write_text(f'#!/bin/sh\nexec {sys.executable} -P -m rillfold "$@"\n')
    command.chmod(0o755)
    given = surroundings(**external(stack.bootstrap_servers, names.prefix, tmp_path / "data"))
    return given | {"RILLFOLD_POSTGRES_DSN": stack.postgres_dsn, "PATH": f"{command.parent}:{given['PATH']}"}


@pytest.fixture
def begun(environment: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """Runs the lines of a block that stay at work."""
    workers: list[WorkerProcess] = []

    def start(block: str) -> None:
        for line in block.splitlines():
            _, *words = line.split()
            if line != SERVERS:
                workers.append(WorkerProcess("-".join(words), tuple(words), environment, tmp_path / "logs").start())
        for worker in workers:
            worker.until_ready()

    monkeypatch.chdir(tmp_path)
    yield start
    for worker in workers:
        worker.close()
        sys.stdout.write(worker.log())


def test_a_newcomer_gets_from_nothing_to_rows(environment: dict[str, str], tmp_path: Path, begun: Any) -> None:
    said, asked = "", ""
    for language, code in blocks("app.md", "sh", "python", "console", "text"):
        environment |= dict(re.findall(r"^export (\w+)=(\S+)$", code, flags=re.M))
        if language == "console":
            begun(code)
        elif language == "text":
            until_said(asked, code, tmp_path, environment)
        elif name := re.match(r"# (\w+\.py)\n", code):
            (tmp_path / name[1]).write_text(code)
        else:
            asked, said = code, ran(language, code, tmp_path, environment | {"PYTHONPATH": f"{tmp_path}:{ROOT}"})
        if "projection refused" in code:
            assert "an order that was paid has cents of at least 0" in said


def until_said(asked: str, wanted: str, folder: Path, environment: dict[str, str]) -> None:
    """The rows are there once workers have taken what was sent: asked again till then."""
    until, lines = time.monotonic() + 60, words_of(wanted)
    while True:
        said = ran("sh", asked, folder, environment)
        if [words for words in words_of(said) if words in lines] == lines:
            return
        assert time.monotonic() < until, said
        time.sleep(0.2)


def words_of(table: str) -> list[list[str]]:
    """Line by line, whenever it was."""
    return [re.sub(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d", "", line).split() for line in table.splitlines()]
