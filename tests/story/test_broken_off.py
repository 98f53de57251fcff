"""The story broken off in each of its parts, and begun anew where it was: half an hour, run by `pytest --kill`."""

import os
import random
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from rillfold.demo.parts import ALL
from rillfold.demo.story import Part
from tests.story.telling import GONE_WITHIN, begin, demo_folder, on
from tests.support.waiting import until

pytestmark = [pytest.mark.model, pytest.mark.timeout(1800)]


@pytest.fixture(scope="module")
def same_folder() -> Iterator[Path]:
    """Each telling finds what the one before it left."""
    with demo_folder() as path:
        yield path


@pytest.mark.parametrize("part", ALL[:-1], ids=lambda part: part.name)
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL], ids=lambda number: number.name)
def test_broken_off_in_any_part_nothing_is_left_running(
    same_folder: Path, tmp_path: Path, part: Part, number: signal.Signals
) -> None:
    out, later = tmp_path / "out", random.uniform(0.0, 2.0)
    told = begin(same_folder, out)
    try:
        until(part.title, lambda: part.title in out.read_text() or told.poll() is not None, 900)
        time.sleep(later)
        assert told.poll() is None, f"{later:.2f} s into {part.name}: {out.read_text()[-2000:]}"
        os.kill(told.pid, number)
        assert told.wait(60) != 0
    finally:
        told.kill()
    until("servers were left behind", lambda: not on(same_folder), GONE_WITHIN)


def test_after_all_that_the_story_is_told(same_folder: Path, tmp_path: Path) -> None:
    told = begin(same_folder, tmp_path / "out")
    assert told.wait(1700) == 0, (tmp_path / "out").read_text()[-4000:]
