"""What the API tells its operator of workers, work that waits, letters and the disk; and nobody else."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

from prometheus_client import CollectorRegistry

from rillfold.http.hosts import known_hosts
from rillfold.http.operator import Operator
from rillfold.workers.listener import Answers, listening
from rillfold.workers.metrics import Readings
from schemas.tools import ToolCallProposed
from schemas.topics import TopicNames
from streams.health.watch import PartitionSeen, Patience, Sight
from streams.health.watchman import Watchman
from streams.log.outgoing import to_outgoing
from streams.log.port import Outgoing

CALL = ToolCallProposed(id="c1", company="acme", time=1, correlation="r", call="c1", job="j", tool="t", arguments="{}")


async def test_a_company_is_told_nothing_of_it(api) -> None:
    assert (await api.ask("GET", "/status", api.acme)).status_code == 403
    assert (await api.ask("GET", "/status")).status_code == 401


async def test_workers_answer_or_do_not_and_what_waits_is_counted(api, tmp_path: Path) -> None:
    watchman = Watchman(lambda: Sight("working", {}), Patience())
    watchman.stalls = 2
    watchman.state = type(watchman.state)(log=1, moved=1, at=1, places={("t", 0): PartitionSeen(3, 10, 1.0)})
    figures = CollectorRegistry()
    figures.register(Readings(watchman, dict))
    run, operator = tmp_path / "run", Operator("token", known_hosts())
    await api.services.log.append([to_outgoing(CALL, TopicNames()), Outgoing("dead-letter", b"k", b"no event")])
    with (
        listening(Answers(lambda: None, figures, operator), "127.0.0.1", 0, run / "fold-1.json"),
        listening(Answers(lambda: "restoring", figures, operator), "127.0.0.1", 0, run / "sink-1.json"),
        listening(Answers(lambda: None, figures, operator), "127.0.0.1", 0, run / "api.json"),
    ):
        (run / "bridge-1.json").write_text('{"url": "http://127.0.0.1:9"}')
        (run / "odd.json").write_text("[")
        (run / "odder.json").write_text('{"url": "::::"}')
        told = (await api.ask("GET", "/status", api.admin)).json()
    seen = {each["name"]: each for each in told["workers"]}
    assert {name: (each["answers"], each["ready"], each["why"]) for name, each in seen.items()} == {
        "bridge-1": (False, False, ""),
        "fold-1": (True, True, ""),
        "odder": (False, False, ""),
        "sink-1": (True, False, "restoring"),
    }
    assert (seen["fold-1"]["behind"], seen["fold-1"]["stalls"]) == (7, 2)
    assert {each["worker"]: each["behind"] for each in told["waiting"]} == {"bridge": 1, "serve": 0, "train": 0}
    assert told["letters"] == {"records": 1, "waiting": 0}
    assert told["disk"]["folder"] == str(tmp_path) and 0 < told["disk"]["free"] <= told["disk"]["total"]


HOLDS = """
import sys, time
from pathlib import Path
from prometheus_client import CollectorRegistry
from rillfold.http.operator import Operator
from rillfold.workers.listener import Answers, listening
answers = Answers(lambda: None, CollectorRegistry(), Operator("token", frozenset()))
with listening(answers, "127.0.0.1", 0, Path(sys.argv[1])):
    print("ready", flush=True)
    time.sleep(60)
"""


async def test_who_was_killed_is_still_named(api, tmp_path: Path) -> None:
    file = tmp_path / "run" / "train-1.json"
    line = [sys.executable, "-c", HOLDS, str(file)]
    with subprocess.Popen(line, stdout=subprocess.PIPE) as child:  # noqa: ASYNC220  it starts in a moment
        assert child.stdout is not None and child.stdout.readline() == b"ready\n"
        (before,) = (await api.ask("GET", "/status", api.admin)).json()["workers"]
        os.kill(child.pid, signal.SIGKILL)
    (after,) = (await api.ask("GET", "/status", api.admin)).json()["workers"]
    assert (before["name"], before["answers"], after["name"], after["answers"]) == ("train-1", True, "train-1", False)
