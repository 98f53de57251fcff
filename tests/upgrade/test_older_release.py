"""A data folder that an older release made, under this one's `rillfold up`: folded on, queried, served from.

Nothing here knows how the folder was made but `told.json`, in which that release says what it held (`record.py`).
"""

from __future__ import annotations

import asyncio
import json
import sys
import tarfile
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import pytest

from schemas.envelope import Event
from schemas.training import TrainingAccepted
from streams.bridge.tool_caller import key_of
from streams.log.kafka.log import KafkaLog
from streams.state.changelog import CLAIM
from tests.upgrade.older_release import CHAT, STORED, caught_up, conversations, ends, events, sunk
from tests.upgrade.release import Release, until
from tests.upgrade.tools import TOKEN, Tool, tool_server

# A whole stack and all workers start for the first test: seconds on a quiet machine, minutes beside others.
pytestmark = pytest.mark.timeout(600)
ROOT = Path(__file__).parents[2]
AT_REST = ("companies", "company_tools", "datasets", "memories")
"""Projections of one version since, for which nothing was under way when the older release was stopped."""
FOLDED_ANEW = {"lora_adapters", "training_runs", "rollouts", "company_automation_jobs"}
"""They have another version since: each is folded beside the older one (docs/projections.md, The next version)."""
NEW_SINCE = {"files"}
"""The older release had none of the name."""
NO_VERDICT = {"promoted": True, "verdict": "", "verdict_detail": "", "against": None, "figures": "{}", "judged_at": 0}
"""Of an adapter that knew no gate: it answers on."""
NEVER_SAID = {
    "withdrawn": None,
    "held_out_loss": None,
    "tokens_per_second": None,
    "seconds_left": None,
    "passed_over": 0,
}
"""Of a run whose worker knew none of it."""
MOVES_ON = {"status", "answer", "step", "history", "replies", "updated_at"}
MOVES_ON |= {"adapter_version", "prompt_tokens", "completion_tokens"}
"""Of a job that was under way: what its next steps change."""
REFUSED_NOW = {"company_tools"}
"""Where the folder has words that are no words of today (docs/guarantees.md, Limits)."""


class Opened(NamedTuple):
    release: Release
    told: Any
    tool: Tool
    rows: dict[str, Any]
    """As this release shows them, before anything new was said."""
    digests: dict[str, Any]
    stores: dict[Path, bytes]
    """Local copies as they were stored, each with the name that RocksDB gave it."""
    ends: dict[str, dict[int, int]]
    sunk: dict[str, list[Any]]


@pytest.fixture(scope="module", params=sorted(folder.name for folder in STORED.iterdir()))
def opened(request: pytest.FixtureRequest) -> Iterator[Opened]:
    """Unpacked elsewhere, under today's `rillfold up --workers`, until what was under way has ended."""
    # Not below pytest's own folder: that is closed to the user under which a root's Postgres runs.
    with TemporaryDirectory(prefix="rillfold-older-") as name, tool_server() as tool:
        root, stored = Path(name), STORED / request.param
        root.chmod(0o755)
        with tarfile.open(stored / "folder.tar.xz") as archive:
            archive.extractall(root, filter="tar")
        release = Release(Path(sys.executable), ROOT, root)
        stores = _stores(release)
        try:
            release.start("up", "up", "--workers", said="api is ready")
            yield _looked_at(release, json.loads((stored / "told.json").read_text()), tool, stores)
        finally:
            release.stop_all()


def _looked_at(release: Release, told: Any, tool: Tool, stores: dict[Path, bytes]) -> Opened:
    key = told["keys"]["acme"]
    assert release.ask("GET", "/company-automation/jobs/job-open?wait=120", None, key)["status"] != "running"
    until("the sink", lambda: caught_up(release))
    rows = {name: _rows(release, name) for name in told["rows"]}
    digests = {each["projection"]: each for each in release.says("projection", "digest")}
    at = ends(release.endpoints()), sunk(release.endpoints())
    return Opened(release, told, tool, rows, digests, stores, *at)


def _rows(release: Release, projection: str) -> list[dict[str, Any]]:
    """As `rillfold query --json` shows them; one process less for each projection."""
    found = release.ask("GET", f"/projections/{projection}?limit=200")["rows"]
    at = ("topic", "partition", "offset")
    return [{"key": row["key"], "at": "/".join(str(row[part]) for part in at), "row": row["row"]} for row in found]


def _stores(release: Release) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in release.data.rglob("IDENTITY")}


def _changelog(name: str, version: int) -> str:
    return f"rillfold-{name}-v{version}-changelog"


def test_the_stand_is_taken_on_and_nothing_of_the_same_version_is_folded_again(opened: Opened) -> None:
    """Whoever folded again would write rows and markers again: there is nothing new but the claims of new owners."""
    written = asyncio.run(_written_since(opened))
    assert {name: keys - {CLAIM} for name, keys in written.items()} == {name: set() for name in AT_REST}
    assert all(CLAIM in keys for keys in written.values())
    # No local copy was put aside, made anew, or left lying while another is used. Next versions have their own.
    now = _stores(opened.release)
    assert {path: now.get(path) for path in opened.stores} == opened.stores != {}
    next_ = {_changelog(name, opened.digests[name]["version"]) for name in FOLDED_ANEW | NEW_SINCE}
    assert {path.parents[1].name for path in now.keys() - opened.stores.keys()} == next_
    for name in AT_REST:
        assert opened.digests[name]["served"] == opened.told["digests"][name]["served"], name
        assert opened.digests[name]["events"] == opened.told["digests"][name]["events"] > 0, name


async def _written_since(opened: Opened) -> dict[str, set[bytes | None]]:
    """The keys of what stands in each changelog behind the older release's last record."""
    found: dict[str, set[bytes | None]] = {}
    async with KafkaLog(opened.release.endpoints().bootstrap_servers) as log:
        for name in AT_REST:
            changelog = _changelog(name, 1)
            for partition, end in opened.told["ends"][changelog].items():
                async for batch in log.read(changelog, int(partition), end):
                    found.setdefault(name, set()).update(record.key for record in batch)
    return found


def test_the_sink_goes_on_in_the_same_tables(opened: Opened) -> None:
    now = {(changelog, partition): (next_, epoch) for changelog, partition, next_, epoch in opened.sunk["positions"]}
    older = {_changelog(name, opened.told["digests"][name]["version"]) for name in FOLDED_ANEW}
    for changelog, partition, next_, epoch in opened.told["sunk"]["positions"]:
        if changelog in older:  # nobody goes on with it, and a release that goes back finds it as it was
            assert now[changelog, partition] == (next_, epoch)
            continue
        # The row of before, which a new sink has locked and counted on: a table made anew would begin with 1.
        assert now[changelog, partition][1] > epoch >= 1
        assert now[changelog, partition][0] >= next_ > 0
    # The transaction that wrote each row is the older release's: no row was written again.
    assert opened.sunk["memories"] == opened.told["sunk"]["memories"] != []
    for name in AT_REST:
        assert opened.rows[name] == opened.told["rows"][name], name
    assert opened.release.says("query", "company_tools")["rows"] == opened.told["rows"]["company_tools"]


def test_a_next_version_is_folded_anew_and_the_older_one_stays(opened: Opened) -> None:
    """None has another version without being named here, and none is named that has not."""
    told, digests = opened.told, opened.digests
    assert {name for name, of in told["digests"].items() if digests[name]["version"] != of["version"]} == FOLDED_ANEW
    for name in FOLDED_ANEW:
        older = _changelog(name, told["digests"][name]["version"])
        assert opened.ends[older] == _numbered(told["ends"][older])
        assert digests[name]["events"] >= told["digests"][name]["events"] > 0


def test_rows_that_are_folded_anew_tell_all_that_the_older_release_told(opened: Opened) -> None:
    rows, told = opened.rows, opened.told["rows"]
    assert rows["lora_adapters"] == [each | {"row": each["row"] | NO_VERDICT} for each in told["lora_adapters"]] != []
    claims = {each.run: each for each in events(opened.release.endpoints(), "training-request") if _is_claim(each)}
    runs = [each | {"row": each["row"] | _claimed(each["row"], claims)} for each in told["training_runs"]]
    asked = {each["key"]: each["row"].pop("asked") for each in rows["training_runs"]}
    assert all(asked.values())  # of the wish, which no release before has kept
    assert rows["training_runs"] == runs != []
    ready = {each["row"]["adapter"]: each for each in told["lora_adapters"]}
    assert told["rollouts"] == []
    assert [(each["key"], each["at"], each["row"]) for each in rows["rollouts"]] == [
        (name, each["at"], _answers(each["row"])) for name, each in ready.items()
    ]


def _is_claim(event: Event) -> bool:
    return isinstance(event, TrainingAccepted)


def _claimed(run: dict[str, Any], claims: dict[str, Any]) -> dict[str, Any]:
    at = claims[run["run"]].time
    return NEVER_SAID | {"generation": 0, "accepted_at": at, "worked": run["updated_at"] - at}


def _answers(adapter: dict[str, Any]) -> dict[str, Any]:
    """Nothing was decided of it: the one version that became ready."""
    row = {"company": adapter["company"], "adapter": adapter["adapter"], "updated_at": adapter["ready_at"]}
    row |= {"newest": adapter["version"], "stable": adapter["version"], "promoted": [adapter["version"]]}
    return row | {"withdrawn": [], "candidate": None, "percent": 0, "decisions": []}


def test_jobs_that_are_folded_anew_begin_with_all_that_the_older_release_told(opened: Opened) -> None:
    now = {each["key"]: each["row"] for each in opened.rows["company_automation_jobs"]}
    told = {
        each["key"]: each["row"] | {"first_step": "free"} for each in opened.told["rows"]["company_automation_jobs"]
    }
    assert now.keys() == told.keys() == {"acme/job-done", "acme/job-open"}
    assert now["acme/job-done"] == told["acme/job-done"]
    going, was = now["acme/job-open"], told["acme/job-open"]
    for each in ("history", "replies"):
        assert going[each][: len(was[each])] == was[each] != going[each]
    assert {name: going[name] for name in going.keys() - MOVES_ON} == {
        name: was[name] for name in was.keys() - MOVES_ON
    }


def test_keys_of_the_older_release_open_their_own_company_and_no_other(opened: Opened) -> None:
    release, keys = opened.release, opened.told["keys"]
    for company, key in keys.items():
        rows = release.ask("GET", "/projections/memories", None, key)["rows"]
        assert [row["row"]["company"] for row in rows] == [company]
    assert release.send("GET", "/projections/memories/acme/greeting", None, keys["globex"]).status_code == 404
    assert release.send("GET", "/projections/memories", None, keys["acme"] + "x").status_code == 401


def test_a_call_under_way_is_made_with_the_stored_secret_under_todays_key(opened: Opened) -> None:
    """What was called already is not called again. The key of a call under way is another (CHANGELOG, Bridge)."""
    release = opened.release
    calls = {call.job: call for call in events(release.endpoints(), "tool-call")}
    assert opened.told["calls"] == [calls["job-done"].call]
    assert opened.tool.calls == [(key_of("acme", calls["job-open"].call), f"Bearer {TOKEN}")]
    replies = {event.job: event for event in events(release.endpoints(), "tool-result")}
    assert (replies["job-open"].ok, replies["job-open"].body) == (True, '{"status":"kept"}')


def test_no_question_is_answered_twice_and_no_run_trained_again(opened: Opened) -> None:
    endpoints = opened.release.endpoints()
    asked = [event.id for event in events(endpoints, "inference-request")]
    assert sorted(event.request for event in events(endpoints, "inference-result")) == sorted(asked)
    assert len(asked) == 4
    assert opened.ends["training-request"] == _numbered(opened.told["ends"]["training-request"])
    assert opened.ends["adapter-ready"] == _numbered(opened.told["ends"]["adapter-ready"])


def _numbered(partitions: dict[str, int]) -> dict[int, int]:
    return {int(number): end for number, end in partitions.items()}


def test_the_adapter_is_served_and_its_lineage_is_told(opened: Opened) -> None:
    release, key = opened.release, opened.told["keys"]["acme"]

    def said(model: str) -> str:
        answer = release.ask("POST", "/v1/chat/completions", CHAT | {"model": model}, key)
        return str(answer["choices"][0]["message"]["content"])

    assert said("acme/default") == opened.told["said"] != said("tiny")
    assert release.send("POST", "/v1/chat/completions", CHAT, opened.told["keys"]["globex"]).status_code == 404
    assert release.says("lineage", "acme/default") == opened.told["lineage"] | NO_VERDICT
    assert opened.told["lineage"]["sha256"] in release.rillfold("lineage", "acme/default/1").decode()


def test_the_dataset_of_the_old_run_verifies_against_the_log(opened: Opened) -> None:
    assert opened.release.says("dataset", "verify", "dataset")["sha256"] == opened.told["lineage"]["manifest"]


def test_the_dead_letter_shows(opened: Opened) -> None:
    """And that of a tool whose name is none any more: a new projection reads the topic from its beginning."""
    letter, refused = opened.release.says("dlq", "list")
    assert not letter.pop("sent_again")
    assert [letter] == opened.told["letters"]
    assert (refused["reason"], refused["company"]) == ("bad_word", "initech")
    place = f"{letter['topic']}/{letter['partition']}/{letter['offset']}"
    assert opened.release.rillfold("dlq", "show", place, "--raw") == b"this is no event"


def test_new_events_are_folded_on_the_old_rows_and_a_refold_agrees(opened: Opened) -> None:
    release, key = opened.release, opened.told["keys"]["acme"]
    before = _datasets(release)
    noted = {"type": "memory.noted", "memory": "greeting", "text": "Ms Grey likes cocoa."}
    talk = {**next(conversations()), "id": "a new talk"}
    placed = release.ask("POST", "/topics/company-data", [noted, talk], key)
    place = "/".join(str(placed[-1][part]) for part in ("topic", "partition", "offset"))
    row = release.ask("GET", f"/projections/memories/acme/greeting?min_offset={place}&wait=30", None, key)["row"]
    assert (row["text"], row["revision"]) == ("Ms Grey likes cocoa.", 3)
    until("the talk", lambda: _datasets(release) == before + 1)
    # Rows of words that are refused today stay as they are until somebody folds anew, and a refold says where.
    facts = release.says("projection", "digest", "--refold", code=1)
    assert {each["projection"] for each in facts if each["served"] != each["refolded"]} == REFUSED_NOW
    assert {each["projection"] for each in facts if each["untaken"]} == set()
    assert {each["projection"] for each in facts} == opened.told["digests"].keys() | NEW_SINCE


def _datasets(release: Release) -> int:
    return sum(row["row"]["events"] for row in _rows(release, "datasets") if row["row"]["company"] == "acme")
