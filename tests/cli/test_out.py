"""A reader that goes away, and a disk that is full: neither ends a command with a traceback."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from rillfold.cli.terminal.bars import download_bars
from rillfold.cli.terminal.out import told

SAYS = [("settings",), ("env",), ("--help",), ("worker", "--help"), ("projection", "list")]


def said(words: tuple[str, ...], out: int, unbuffered: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONUNBUFFERED": unbuffered, "RILLFOLD_PROVIDER": "external"}
    environment |= {"RILLFOLD_BOOTSTRAP_SERVERS": "127.0.0.1:9"}
    line = [sys.executable, "-m", "rillfold", *words]
    return subprocess.run(line, env=environment, stdout=out, stderr=subprocess.PIPE, text=True, timeout=60)


@pytest.mark.parametrize("words", SAYS, ids=" ".join)
def test_who_reads_no_further_ends_it_quietly_as_any_other_program(words: tuple[str, ...]) -> None:
    read, write = os.pipe()
    os.close(read)
    try:
        done = said(words, write, "")
    finally:
        os.close(write)
    assert (done.returncode, done.stderr) == (141, "")


@pytest.mark.parametrize("unbuffered", ["", "1"])
@pytest.mark.parametrize("words", SAYS[::2], ids=" ".join)
def test_a_full_disk_is_told_in_one_line(words: tuple[str, ...], unbuffered: str) -> None:
    full = os.open("/dev/full", os.O_WRONLY)
    try:
        done = said(words, full, unbuffered)
    finally:
        os.close(full)
    assert done.returncode == 1
    assert done.stderr.splitlines() == [
        "rillfold: standard output: No space left on device. Name another place, or mend this one."
    ]


def test_another_files_error_is_not_blamed_on_the_output(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(OSError, match="another"), told():
        raise OSError(28, "another")


def test_a_download_draws_nothing_where_nobody_looks(capsys: pytest.CaptureFixture[str]) -> None:
    """An empty line for each step of a bar, in every log."""
    with download_bars() as bars, bars("kafka.jar", 10) as step:
        step(10)
    assert capsys.readouterr() == ("", "")
