"""What the operator is told of workers, letters and the disk: what is wrong stands apart, with its remedy."""

from __future__ import annotations

from typing import Any

from gpu_workers.serve import worker as serving
from gpu_workers.train import worker as training
from rillfold.cli.company.here import lines
from rillfold.processes import WORKERS
from streams.bridge import tool_bridge

GIB = 1 << 30
EVERY = ("fold-1", "sink-1", "bridge-1", "serve-1", "train-1")


def worker(name: str, **changes: Any) -> dict[str, Any]:
    well = {"name": name, "url": "http://127.0.0.1:1", "answers": True, "ready": True, "why": "", "behind": 0}
    return well | {"stalls": 0} | changes


def told(*workers: dict[str, Any], behind: int = 0, **changes: Any) -> tuple[list[str], list[str]]:
    """What is well, and what is wrong."""
    seen = {
        "provider": "embedded",
        "workers": list(workers),
        "waiting": [{"worker": kind, "topic": each.reads, "behind": 0} for kind, each in WORKERS.items() if each.reads],
        "letters": {"records": 0, "waiting": 0},
        "disk": {"folder": "/data", "free": 50 * GIB, "total": 100 * GIB},
    }
    found = list(lines(seen | changes, behind))
    return [each.told for each in found if not each.wrong], [each.told for each in found if each.wrong]


def test_all_is_well_in_few_lines() -> None:
    well, wrong = told(*map(worker, EVERY))
    assert wrong == []
    assert well == [f"{', '.join(EVERY)} at work", "none waits", "50.0 of 100.0 GiB are free under /data"]


def test_who_was_killed_or_stands_is_named_with_what_to_do() -> None:
    stands = worker("sink-1", ready=False, why="events/0 stands at 3 of 9 for 30 s")
    _, wrong = told(worker("fold-1", answers=False, ready=False), stands, worker("a", answers=False))
    assert "fold-1 does not answer at http://127.0.0.1:1" in wrong[0] and "`rillfold worker fold`" in wrong[0]
    assert "stands at 3 of 9" in wrong[1]
    _, (told_,) = told(*map(worker, EVERY[1:]), worker("fold-1", ready=False, why="fold anew: docs/operations.md."))
    assert "docs/operations.md. If" in told_
    assert "rillfold worker" not in wrong[2] and "run/a.json" in wrong[2]


def test_a_worker_that_stood_still_and_is_behind_says_so_and_is_at_work() -> None:
    well, wrong = told(*map(worker, EVERY[1:]), worker("fold-1", behind=7, stalls=2))
    assert wrong == [] and "fold-1 (7 behind, stood still 2 times since it began)" in well[0]


def test_nobody_runs_and_something_waits() -> None:
    waiting = [{"worker": "bridge", "topic": "tool-call", "behind": 3}]
    waiting += [{"worker": kind, "topic": "t", "behind": 0} for kind in ("serve", "train")]
    well, wrong = told(worker("fold-1"), worker("sink-1"), waiting=waiting)
    (bridge,) = wrong
    assert (
        bridge == "no bridge worker runs, and 3 events of tool-call wait for one: start it (`rillfold worker bridge`)."
    )
    assert "no serve, train runs, and nothing waits for one" in well
    _, wrong = told(behind=4)
    assert [each[:14] for each in wrong] == ["no fold worker", "no sink worker"]


def test_elsewhere_nothing_is_known_of_who_is_not_here() -> None:
    well, wrong = told(worker("api-2"), provider="external", behind=4)
    assert wrong == []
    assert any("one elsewhere is not seen from here" in each for each in well)
    assert any("the disks of Kafka and Postgres are not seen from here" in each for each in well)


def test_work_in_hand_is_said_and_is_no_fault() -> None:
    waiting = [{"worker": "bridge", "topic": "tool-call", "behind": 3}]
    well, wrong = told(*map(worker, EVERY), waiting=waiting)
    assert wrong == [] and "events that wait for a worker, or are in its hands: 3 of tool-call" in well
    unknown = [{"worker": kind, "topic": "t", "behind": None} for kind in ("bridge", "serve", "train")]
    well, wrong = told(worker("fold-1"), worker("sink-1"), waiting=unknown)
    assert wrong == [] and any("is not known" in each for each in well)


def test_letters_and_the_disk() -> None:
    well, _ = told(*map(worker, EVERY), letters={"records": 5, "waiting": 2})
    assert "2 records were refused and not sent again: `rillfold dlq list` says why" in well
    well, _ = told(*map(worker, EVERY), letters={"records": 50_000, "waiting": None})
    assert any(each.startswith("50,000 records") for each in well)
    _, wrong = told(*map(worker, EVERY), disk={"folder": "/data", "free": GIB // 2, "total": 100 * GIB})
    assert wrong == ["0.5 of 100.0 GiB are free under /data: make room, or servers there will stop."]


def test_the_table_of_processes_names_the_groups_that_there_are() -> None:
    told = {kind: (each.group, each.reads) for kind, each in WORKERS.items() if each.reads}
    assert told == {
        "bridge": (tool_bridge.GROUP, "tool-call"),
        "serve": (serving.GROUP, serving.TOPIC),
        "train": (training.GROUP, training.TOPIC),
    }
