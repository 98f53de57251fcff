"""`make demo` as a stranger runs it: the whole story, a part that fails, and a story that is broken off anywhere."""

import io
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import psutil
import pytest
from rich.console import Console

from rillfold.demo.parts import ALL
from rillfold.demo.stage import Stage
from rillfold.demo.story import MARK, Part, PartFailed, fresh, tell
from schemas.errors import Stop

GONE_WITHIN = 15.0


@pytest.fixture
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Outside of pytest's own folder, which root's Postgres may not enter."""
    import tempfile

    with tempfile.TemporaryDirectory(prefix="rillfold-demo-", ignore_cleanup_errors=True) as path:
        Path(path).chmod(0o755)
        yield Path(path) / "demo"


def begin(folder: Path, out: Path) -> subprocess.Popen[bytes]:
    line = [sys.executable, "-P", "-m", "rillfold", "demo", "--data-dir", str(folder)]
    # Whatever servers a person's environment names, the story has its own.
    elsewhere = os.environ | {"RILLFOLD_BOOTSTRAP_SERVERS": "127.0.0.1:1"}
    with out.open("wb") as file:
        return subprocess.Popen(line, env=elsewhere, stdout=file, stderr=subprocess.STDOUT, start_new_session=True)


def on(folder: Path) -> list[psutil.Process]:
    """Every process that was started for this folder."""
    found = []
    for process in psutil.process_iter(["cmdline"]):
        if any(str(folder) in word for word in process.info["cmdline"] or ()):
            found.append(process)
    return found


def until(what: str, truth: Any, seconds: float) -> None:
    end = time.monotonic() + seconds
    while not truth():
        assert time.monotonic() < end, what
        time.sleep(0.1)


@pytest.mark.model
@pytest.mark.timeout(1800)
def test_the_whole_story_is_told(folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    told = begin(folder, out)
    try:
        code = told.wait(1700)
    finally:
        told.kill()
    text = out.read_text()
    assert code == 0, text[-4000:]
    for part in ALL:
        assert part.title in text
    until("servers were left behind", lambda: not on(folder), GONE_WITHIN)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL], ids=lambda number: number.name)
def test_a_story_that_is_broken_off_leaves_nothing_and_begins_anew(
    folder: Path, tmp_path: Path, number: signal.Signals
) -> None:
    for _ in range(2):
        out = tmp_path / "out"
        told = begin(folder, out)
        until("no worker came up", lambda: "fold is ready" in out.read_text() or told.poll() is not None, 200)  # noqa: B023
        assert told.poll() is None, out.read_text()
        os.kill(told.pid, number)
        assert told.wait(60) != 0
        until("servers were left behind", lambda: not on(folder), GONE_WITHIN)


def test_only_a_folder_of_the_demo_is_emptied(tmp_path: Path) -> None:
    console, mine = Console(file=io.StringIO()), tmp_path / "demo"
    for _ in range(2):
        fresh(mine, console)
        assert [path.name for path in mine.iterdir()] == [MARK]
        (mine / "kafka").mkdir()
        (mine / "kafka" / "log").touch()
    (precious := tmp_path / "home" / "letter").parent.mkdir()
    precious.touch()
    with pytest.raises(Stop, match="no demo has made"):
        fresh(precious.parent, console)
    with pytest.raises(Stop, match="cannot hold the demo"):
        fresh(precious, console)
    assert precious.exists()


async def test_a_part_that_fails_is_named(tmp_path: Path) -> None:
    heard: list[str] = []

    async def good(_: Stage) -> None:
        heard.append("good")

    async def bad(_: Stage) -> None:
        raise ValueError("the tide went out")

    console = Console(file=io.StringIO())
    stage = cast(Stage, SimpleNamespace(console=console, data_dir=tmp_path, seconds={}))
    with pytest.raises(PartFailed, match=r"part 'second' failed: the tide went out.*logs"):
        await tell([Part("first", "First", good), Part("second", "Second", bad), Part("third", "Third", good)], stage)
    assert heard == ["good"]
