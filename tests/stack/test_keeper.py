"""No server outlives its owner, whatever dies first."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
from pathlib import Path

import psutil
import pytest

from rillfold.embedded.children import Child
from rillfold.embedded.errors import StackError
from tests.support.up import ROOT, gone, until

SLEEP = ["sleep", "600"]


def test_stop_ends_the_server_and_its_keeper(tmp_path: Path) -> None:
    child = Child("Sleeper", SLEEP, tmp_path / "log")
    assert child.alive()
    child.stop()
    assert not child.alive()
    assert gone(child.pid)


def test_kill_minus_9_of_the_keeper_takes_the_server_along(tmp_path: Path) -> None:
    child = Child("Sleeper", SLEEP, tmp_path / "log")
    keeper = psutil.Process(child.pid).parent()
    assert keeper is not None
    keeper.send_signal(signal.SIGKILL)
    until(lambda: gone(child.pid), patience=5)
    child.stop()


def test_the_end_of_the_thread_that_started_it_is_not_the_end_of_the_server(tmp_path: Path) -> None:
    started: list[Child] = []
    thread = threading.Thread(target=lambda: started.append(Child("Sleeper", SLEEP, tmp_path / "log")))
    thread.start()
    thread.join()
    with pytest.raises(psutil.TimeoutExpired):
        psutil.Process(started[0].pid).wait(1)
    started[0].stop()


@pytest.mark.parametrize("moment", ["at once", "after a signal that is ignored"])
def test_kill_minus_9_of_the_owner_is_noticed_at_any_moment(tmp_path: Path, moment: str) -> None:
    command = SLEEP if moment == "at once" else ["sh", "-c", "trap '' TERM; while true; do sleep 0.1; done"]
    owner = (
        "import os, pathlib, signal\n"
        "from rillfold.embedded.children import Child\n"
        f"child = Child('Sleeper', {command!r}, pathlib.Path({str(tmp_path / 'log')!r}))\n"
        "print(child.pid, flush=True)\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    done = subprocess.run([sys.executable, "-c", owner], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == -signal.SIGKILL
    until(lambda: gone(int(done.stdout)), patience=5)


def test_an_owner_that_is_gone_before_the_keeper_looks_is_noticed_too(tmp_path: Path) -> None:
    keeper = ROOT / "rillfold" / "embedded" / "keeper.py"
    nobody = subprocess.run(["sh", "-c", "echo $$"], capture_output=True, text=True).stdout.strip()
    line = [sys.executable, "-I", "-S", str(keeper), nobody, str(int(signal.SIGTERM)), "30", "3", "", *SLEEP]
    done = subprocess.run(line, capture_output=True, text=True, timeout=10)
    assert gone(int(done.stdout))


def test_a_command_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(StackError, match=r"Sleeper could not be started.*no-such-program.*rillfold doctor"):
        Child("Sleeper", [str(tmp_path / "no-such-program")], tmp_path / "log")
