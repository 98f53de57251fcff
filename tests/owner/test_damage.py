"""What a worker keeps on its disk is lost or damaged in the worst moment: its rows are those of a fresh fold."""

from __future__ import annotations

import shutil
import signal
from pathlib import Path
from typing import Any

import pytest

from projections.datasets import DATASETS
from schemas.topics import TopicNames
from streams.fold.failpoint import STEPS
from streams.state.changelog import topic_of
from tests.support.folding import NobodyFolds

ONLY = ("--only", DATASETS.name)


@pytest.mark.parametrize("step", STEPS)
async def test_a_crash_within_a_commit_that_takes_the_disk_with_it(
    step: str, workers: Any, some_events: Any, produce: Any, agree: Any, tmp_path: Path
):
    await produce(some_events(1500, 31))
    worker = workers("a")
    worker.start(*ONLY, failpoint=f"{step}:2")
    assert worker.ended() == -signal.SIGKILL
    shutil.rmtree(tmp_path / "a")
    await produce(some_events(500, 32))
    worker.start(*ONLY)
    assert await agree([DATASETS]) > 50


def flip(path: Path, at: float) -> None:
    content = bytearray(path.read_bytes())
    content[int((len(content) - 1) * at)] ^= 0x55
    path.write_bytes(content)


def tables(tmp_path: Path, names: TopicNames) -> list[Path]:
    return sorted((tmp_path / "a" / "workers" / "a" / "tables" / topic_of(DATASETS, names.prefix)).iterdir())


@pytest.mark.parametrize("file", ["*.sst", "CURRENT", "MANIFEST-*"])
async def test_a_table_that_is_damaged_is_put_aside_and_read_again(
    file: str, workers: Any, some_events: Any, produce: Any, agree: Any, tmp_path: Path, names: TopicNames
):
    await produce(some_events(3000, 33))
    worker = workers("a")
    worker.start(*ONLY)
    await agree([DATASETS])
    worker.send(signal.SIGTERM)
    assert worker.ended() == 0
    damaged = tables(tmp_path, names)
    for folder in damaged:
        flip(max(folder.glob(file)), 0.2)
    await produce(some_events(1000, 34))
    # As a supervisor would: a checksum may turn out to be wrong only when a row is read.
    for _ in range(2 * len(damaged)):
        worker.start(*ONLY)
        if await settled(worker, agree):
            break
    assert worker.alive
    assert "is damaged" in worker.log()
    assert list(damaged[0].parent.glob("*.discarded"))


async def settled(worker: Any, agree: Any) -> bool:
    """Either all is folded, or the worker has ended and says why."""
    try:
        await agree([DATASETS])
    except NobodyFolds:
        assert worker.ended(1) == 70, worker.log()
        assert "puts the folder aside" in worker.log()
        return False
    return True


async def test_the_end_of_a_write_ahead_log_that_is_damaged_costs_only_time(
    workers: Any, some_events: Any, produce: Any, agree: Any, tmp_path: Path, names: TopicNames
):
    await produce(some_events(3000, 35))
    worker = workers("a")
    worker.start(*ONLY)
    await agree([DATASETS])
    worker.kill()
    for folder in tables(tmp_path, names):
        flip(max(folder.glob("*.log"), key=lambda path: path.stat().st_size), 0.7)
    await produce(some_events(1000, 36))
    worker.start(*ONLY)
    await agree([DATASETS])
