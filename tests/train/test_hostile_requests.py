"""What one company's requests say never ends the worker, never becomes a path, never holds up another company."""

from __future__ import annotations

import asyncio
import errno
import json
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec
import pytest

from gpu_workers.adapters.keys import CARD, PROVENANCE
from gpu_workers.adapters.store import Facts, FolderStore, verify
from gpu_workers.errors import ChildDied, Diverged, StoreTakesNothing, Unhealthy
from gpu_workers.inbox.inbox import Inbox, Item
from gpu_workers.train import parent
from gpu_workers.train.child import reason_of
from gpu_workers.train.lines import Broken, ProofSpec, Report, Trained
from gpu_workers.train.parent import KeptChild, train_in_child
from gpu_workers.train.place import Workplace
from gpu_workers.train.worker import GROUP
from processors.dataset.turns import is_held_out
from processors.training import said as say
from processors.training.admit import RunBounds
from rillfold.demo import data
from schemas.company import ConversationIngested, Message, ToolUse
from schemas.envelope import Event
from schemas.topics import TopicNames
from schemas.training import (
    OffsetRange,
    TrainingAccepted,
    TrainingCompleted,
    TrainingFailed,
    TrainingRefused,
    TrainingRequested,
)
from streams.errors import AppendFailed
from streams.log.memory import MemoryLog
from streams.log.port import Outgoing
from tests.support.made import made_once
from tests.support.training import conversations, writable
from tests.train.test_trainer import ENDS, CrashingLog, Office, ended, of

SHORT = msgspec.json.encode({"rank": 1, "steps": 1, "batch": 1, "warmup": 0, "evaluation_rows": 0}).decode()


@pytest.fixture
async def office(tmp_path: Path, tiny_base: Path) -> Office:
    return await Office(MemoryLog(), TopicNames(), tmp_path, tiny_base).open()


async def declines(spec, on_report) -> Broken:
    """It came as far as training: that is all these tests want to know."""
    return Broken(reason="declined", detail="by the test")


def reasons(said: list[Event]) -> dict[tuple[str, str], str]:
    return {
        (event.company, event.run): getattr(event, "reason", "completed") for event in said if isinstance(event, ENDS)
    }


IDS = ("..", ".", "../..", "/", "//", "~", "a/../../b", "..\\..", "-rf", "*", "%2e%2e", "x" * 128)


async def test_no_id_is_a_path_and_nothing_of_the_data_folder_goes(office):
    keep = [
        office.tmp_path / "log" / "0.log",
        office.tmp_path / "scratch-one" / "keep",
        office.tmp_path / "store" / "x",
    ]
    for file in keep:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text("everything")
    seen: set[Path] = set()

    async def looks(spec, on_report) -> Broken:
        seen.add(spec.out.parent)
        return await declines(spec, on_report)

    await office.append(*(office.request(run) for run in IDS))
    said = await office.until(office.trainer(train=looks), ended(*IDS))
    assert set(reasons(said).values()) == {"declined"}
    assert {folder.parent for folder in seen} == {office.tmp_path / "scratch-one"}
    assert len(seen) == len(IDS)
    assert all(len(folder.name) == 64 and int(folder.name, 16) for folder in seen)
    assert [file.read_text() for file in keep] == ["everything"] * 3
    assert sorted(path.name for path in (office.tmp_path / "scratch-one").iterdir()) == ["keep"]


def test_two_companies_never_share_a_folder(tmp_path):
    place = Workplace(worker="w", scratch=tmp_path, cache=tmp_path, threads=1, clock=lambda: 1, bases={})
    pairs = [("acme", "r"), ("acme", "s"), ("globex", "r"), ("a", "b/c"), ("a.b", "c")]
    folders = {place.empty_folder(*pair, 1) for pair in pairs}
    assert len(folders) == len(pairs)
    (first,) = (folder for folder in folders if folder == place.empty_folder("acme", "r", 1))
    (first / "left").write_text("by a crash")
    assert [path.name for path in place.empty_folder("acme", "r", 1).iterdir()] == ["out"]


BASES = ("", "..", "/", "~nouser/x", "~", "a\0b", "x" * 300, "x" * 100_000, "tiny/../tiny", "{base}", "./tiny", "\n")


async def test_no_request_names_a_path_of_this_machine(office):
    bases = [base.format(base=office.base) for base in BASES]
    asked = writable(office.request(f"r{n}", base_model=base) for n, base in enumerate(bases))
    assert len(asked) >= 5
    await office.append(*asked, office.request("last", "globex"))
    said = await office.until(office.trainer(train=declines), ended(*(each.id for each in asked), "last"))
    found = reasons(said)
    assert found.pop(("globex", "last")) == "declined"
    assert set(found.values()) == {"unknown_base_model"}
    details = [event.detail for event in of(said, TrainingRefused)]
    assert all("tiny" in detail and len(detail) < 1000 for detail in details)


async def test_a_listed_base_that_is_gone_refuses_and_tells_nobody_where_it_lay(office, tmp_path):
    office.base = str(tmp_path / "secret-place")
    await office.append(office.request("r1"))
    (refused,) = of(await office.until(office.trainer(), ended("r1")), TrainingRefused)
    assert refused.reason == "unknown_base_model"
    assert "secret-place" not in refused.detail


def part(partition: int, stop: int) -> OffsetRange:
    return OffsetRange(topic="company-data", partition=partition, start=0, stop=stop)


RANGES: dict[str, tuple[str, tuple[OffsetRange, ...]]] = {
    "a partition that is not there": ("bad_ranges", (part(10**9, 1),)),
    "too many": ("bad_ranges", (part(0, 1),) * 20_000),
    "beyond the end": ("missing_offsets", (part(0, 2**62),)),
    "nothing": ("no_data", (part(0, 0),)),
}


@pytest.mark.parametrize("what", RANGES)
async def test_ranges_that_cannot_be_are_refused_and_the_next_company_trains(office, what):
    reason, ranges = RANGES[what]
    await office.append(office.request("r1", ranges=ranges), office.request("r2", "globex"))
    said = await office.until(office.trainer(train=declines), ended("r1", "r2"))
    assert reasons(said) == {("acme", "r1"): reason, ("globex", "r2"): "declined"}


BREAKS: dict[str, tuple[BaseException, str]] = {
    "recursion": (RecursionError("too deep"), "internal"),
    "memory": (MemoryError(), "internal"),
    "cuda": (RuntimeError("CUDA error: an illegal memory access was encountered"), "internal"),
    "disk": (OSError(errno.ENOSPC, "No space left on device"), "no_space"),
    "file": (FileNotFoundError("/x"), "internal"),
    "value": (ValueError("x" * 500_000), "internal"),
    "text": (ValueError("\ud800"), "internal"),
    "key": (KeyError("no such key"), "internal"),
    "child": (ChildDied("code -9"), "child_died"),
}


@pytest.mark.parametrize("what", BREAKS)
async def test_whatever_breaks_under_a_run_ends_that_run_alone(office, what):
    error, reason = BREAKS[what]

    async def breaks(spec, on_report):
        if spec.settings.seed == 13:
            raise error
        return await declines(spec, on_report)

    await office.append(office.request("r1", settings='{"seed": 13}'), office.request("r2", "globex"))
    said = await office.until(office.trainer(train=breaks), ended("r1", "r2"))
    assert reasons(said) == {("acme", "r1"): reason, ("globex", "r2"): "declined"}


async def test_runs_that_break_are_their_own_where_the_machine_trains_and_else_the_machines(office):
    async def breaks(spec, on_report):
        raise ChildDied("CUDA error")

    await office.append(*(event for event in conversations(data.ACME, 3)))
    third = [msgspec.structs.replace(event, company="initech") for event in conversations(data.ACME, 3)]
    await office.append(*third)
    await office.append(*(office.request(f"a{n}") for n in range(5)))
    said = await office.until(office.trainer(train=breaks), ended(*(f"a{n}" for n in range(5))))
    assert set(reasons(said).values()) == {"child_died"}, "on a machine that trains, they are the runs' own"

    companies = {"acme", "globex", "initech"}
    await office.append(*(office.request("b", company) for company in companies))
    with pytest.raises(Unhealthy, match="child_died"):
        await office.until(office.trainer(name="two", train=breaks, machine=lambda train: train), lambda _said: False)
    assert not [run for _, run in reasons(await office.said()) if run == "b"], "all three wait, the first as well"
    said = await office.until(
        office.trainer(name="three", train=declines),
        lambda said: {c for c, r in reasons(said) if r == "b"} == companies,
    )
    assert {reasons(said)[company, "b"] for company in companies} == {"declined"}


class FullStore:
    """An artifact store on a disk that is full, but for a manifest."""

    def put_manifest(self, body: bytes) -> None: ...

    def put(self, folder: Path, facts: object) -> str:
        raise OSError(errno.ENOSPC, "No space left on device")

    def has_room(self) -> bool:
        return False


class NearlyFullStore(FolderStore):
    """On a disk with room for small adapters, and for one of rank 13 no more."""

    def put(self, folder: Path, facts: Facts) -> str:
        if json.loads((folder / "adapter_config.json").read_text())["r"] == 13:
            raise OSError(errno.ENOSPC, "No space left on device")
        return super().put(folder, facts)


async def test_an_adapter_for_which_a_store_has_no_room_fails_its_own_run_and_no_other_waits(office):
    office.store = NearlyFullStore(office.tmp_path / "small")
    large = msgspec.json.encode({**msgspec.json.decode(SHORT), "rank": 13}).decode()
    await office.append(office.request("large", settings=large), office.request("small", "globex", settings=SHORT))
    said = await office.until(office.trainer(), ended("large", "small"))
    assert reasons(said) == {("acme", "large"): "no_space", ("globex", "small"): "completed"}
    assert {path.name[:6] for path in (office.tmp_path / "small" / "sha256").iterdir()}.isdisjoint({".draft"})
    (office.tmp_path / "file").write_text("in the way")
    assert not FolderStore(office.tmp_path / "file").has_room()


async def test_a_store_that_takes_nothing_ends_the_worker_by_name_and_the_request_waits(office):
    store = office.store
    office.store = FullStore()
    await office.append(office.request("r1", settings=SHORT))
    with pytest.raises(Unhealthy, match=r"artifact store.*No space left"):
        await office.until(office.trainer(), lambda _said: False)
    office.store = store
    said = await office.until(office.trainer(name="two"), ended("r1"))
    assert [type(event) for event in said if isinstance(event, ENDS)] == [TrainingCompleted]
    assert [claim.worker for claim in of(said, TrainingAccepted)] == ["one", "two"]


class ClosedStore(FolderStore):
    """It took the adapter, and takes nothing any more."""

    def put_papers(self, sha256: str, name: str, papers: Mapping[str, bytes]) -> None:
        raise StoreTakesNothing("adapter store s3://bucket takes no README.md: it is read-only.")


async def test_a_store_that_closes_before_the_papers_ends_the_worker_and_nothing_is_ready_without_them(office):
    office.store = ClosedStore(office.tmp_path / "store")
    await office.append(office.request("r1", settings=SHORT))
    with pytest.raises(Unhealthy, match=r"takes no papers: adapter store s3://bucket"):
        await office.until(office.trainer(), lambda _said: False)
    assert not await office.ready()
    office.store = FolderStore(office.tmp_path / "store")
    await office.until(office.trainer(name="two"), ended("r1"))
    (ready,) = await office.ready()
    assert ready.adapter_version == 1 and set(office.store.papers(ready.sha256)) == {CARD, PROVENANCE}


async def test_a_scratch_folder_that_cannot_be_made_ends_the_worker_by_name(office):
    (office.tmp_path / "scratch-one").write_text("a file")
    await office.append(office.request("r1"))
    with pytest.raises(Unhealthy, match="scratch-one"):
        await office.until(office.trainer(train=declines), lambda _said: False)
    assert not reasons(await office.said())


class DeafLog(CrashingLog):
    """A broker that acknowledges nothing, and says so with an error that nobody wrapped."""

    async def append(self, records: list[Outgoing]) -> Any:
        raise AppendFailed("training-request", "no answer") if self._after else RuntimeError("KafkaError")


@pytest.mark.parametrize("named", [True, False])
async def test_what_the_log_raises_is_never_a_requests_fault(office, named):
    await office.append(office.request("r1"))
    log = DeafLog(office.log, 1, after=named)
    with pytest.raises(AppendFailed if named else RuntimeError):
        await office.until(office.trainer(log, train=declines), lambda _said: False)
    assert reasons(await office.until(office.trainer(train=declines), ended("r1"))) == {("acme", "r1"): "declined"}


async def test_a_run_that_takes_too_long_is_ended(office):
    stopped = asyncio.Event()

    async def endless(spec, on_report):
        if spec.settings.seed != 13:
            return await declines(spec, on_report)
        try:
            await asyncio.Event().wait()
        finally:
            stopped.set()

    await office.append(office.request("r1", settings='{"seed": 13}'), office.request("r2", "globex"))
    trainer = office.trainer(train=endless, bounds=RunBounds(seconds=0.2))
    said = await office.until(trainer, ended("r1", "r2"))
    assert reasons(said) == {("acme", "r1"): "too_long", ("globex", "r2"): "declined"}
    assert stopped.is_set()


async def test_a_thousand_requests_of_one_company_hold_up_no_other(office):
    order: list[int] = []

    async def notes(spec, on_report):
        order.append(spec.settings.seed)
        return await declines(spec, on_report)

    many = [office.request(f"a{n}", settings='{"seed": 1}') for n in range(1000)]
    few = [office.request(f"g{n}", "globex", settings='{"seed": 2}') for n in range(3)]
    await office.append(*many, *few)
    await office.until(office.trainer(train=notes), ended("g0", "g1", "g2"))
    assert len(order) <= 12, "the thousand had as many turns as the three, and one poll more"
    assert order.count(2) == 3


async def test_a_name_that_is_nowhere_is_not_left_out_in_silence(office):
    await office.append(
        office.request("out", settings='{"select": {"leave_out": ["nobody-1"]}}'),
        office.request("only", settings='{"select": {"agents": ["nobody-2"]}}'),
    )
    ends = await office.until(office.trainer(train=declines), ended("out", "only"))
    assert {(event.run, event.reason) for event in of(ends, TrainingRefused)} == {
        ("out", "no_such_name"),
        ("only", "no_such_name"),
    }
    told = " ".join(event.detail for event in of(ends, TrainingRefused))
    assert "select.leave_out names 'nobody-1'" in told and "select.agents names 'nobody-2'" in told


async def test_a_refusal_waits_for_no_training(office):
    async def endless(spec, on_report):
        await asyncio.Event().wait()

    await office.append(office.request("r1"), office.request("r2", "globex", base_model=".."))
    said = await office.until(office.trainer(train=endless), ended("r2"))
    assert reasons(said) == {("globex", "r2"): "unknown_base_model"}


async def test_a_full_inbox_polls_on_and_loses_nothing(office):
    asked = [office.request(f"r{n}", company, settings=SHORT) for n in range(6) for company in ("acme", "globex")]
    await office.append(*asked)
    inbox = Inbox(most=3)
    said = await office.until(
        office.trainer(train=declines, inbox=inbox), lambda said: len(reasons(said)) == len(asked)
    )
    assert set(reasons(said).values()) == {"declined"}
    assert len(said) == len({event.id + event.company for event in said})


async def test_what_one_company_asks_beyond_its_room_is_refused_by_name_and_no_other_waits(office):
    async def endless(spec, on_report):
        await asyncio.Event().wait()

    flood = [office.request(f"r{n}", settings=SHORT) for n in range(40)]
    await office.append(*flood, *flood[:3], office.request("g", "globex", base_model=".."))
    trainer = office.trainer(train=endless, inbox=Inbox(most=20, each=10))
    said = await office.until(trainer, ended(*(each.id for each in flood[10:]), "g"))
    found = reasons(said)
    assert found.pop(("globex", "g")) == "unknown_base_model"
    assert found == {("acme", each.id): "too_many_requests" for each in flood[10:]}
    assert all("Send it again" in event.detail for event in of(said, TrainingRefused) if event.company == "acme")
    assert len({event.id for event in of(said, TrainingRefused)}) == len(of(said, TrainingRefused)) == 31


async def test_runs_that_end_at_once_wait_for_no_poll_and_show_that_they_end(office, monkeypatch):
    monkeypatch.setattr("gpu_workers.train.worker.POLL_SECONDS", 3)
    runs = [f"r{n}" for n in range(20)]
    await office.append(*(office.request(run, ranges=(part(0, 2**62),)) for run in runs))
    trainer, begun = office.trainer(train=declines, inbox=Inbox(most=4)), time.monotonic()
    await office.until(trainer, ended(*runs))
    assert time.monotonic() - begun < 15, "three seconds each is a minute"
    assert trainer.standing.sight().beats >= len(runs) - 1


async def test_the_same_id_of_two_companies_is_two_runs_with_two_adapters(office):
    await office.append(office.request("r", settings=SHORT), office.request("r", "globex", settings=SHORT))
    said = await office.until(office.trainer(), lambda said: len(reasons(said)) == 2)
    assert reasons(said) == {("acme", "r"): "completed", ("globex", "r"): "completed"}
    ready = {event.company: event for event in await office.ready()}
    assert {company: event.adapter for company, event in ready.items()} == {
        "acme": "acme/default",
        "globex": "globex/default",
    }
    assert ready["acme"].sha256 != ready["globex"].sha256
    assert verify(office.store.place(ready["globex"].sha256), ready["globex"].sha256).company == "globex"


async def test_a_bad_line_with_a_running_runs_id_ends_nothing_of_it(office):
    begun = asyncio.Event()

    async def slow(spec, on_report):
        begun.set()
        await asyncio.sleep(1.5)
        return await declines(spec, on_report)

    await office.append(office.request("r1"), office.request("r1", settings="?"))
    said = await office.until(office.trainer(train=slow), ended("r1"))
    assert reasons(said) == {("acme", "r1"): "declined"}
    assert not of(said, TrainingRefused)
    await office.append(office.request("r2", settings="?"), office.request("r2"))
    said = await office.until(office.trainer(name="two", train=slow), ended("r2"))
    assert [type(event) for event in said if isinstance(event, ENDS)] == [TrainingFailed, TrainingRefused]


def test_the_inbox_commits_nothing_beyond_what_waits_in_whatever_order_it_is_done():
    inbox, place = Inbox(), ("training-request", 0)
    items = [Item(place, n, company, f"r{n}") for n, company in enumerate("aaab")]
    for item in items:
        inbox.add(item)
        inbox.add(item)
    inbox.passed(place, 9)
    done = []
    while item := inbox.first():
        assert inbox.committable() == {place: min(each.offset for each in items if each not in done)}
        inbox.begun(item)
        inbox.finished(item)
        done.append(item)
    assert [item.offset for item in done] == [0, 3, 1, 2]
    assert inbox.committable() == {place: 9}


async def test_what_was_refused_at_once_is_committed(office):
    await office.append(*(office.request(f"r{n}", settings="?") for n in range(3)))
    await office.until(office.trainer(train=declines), ended("r0", "r1", "r2"))
    said = await office.until(office.trainer(name="two", train=declines), ended("r0", "r1", "r2"))
    assert len(of(said, TrainingRefused)) == 3
    assert await office.log.committed(GROUP, "training-request")


SAID = {
    "a line that is none": "print('boo')",
    "a long line": "import sys; sys.stdout.write('x' * 300_000)",
    "a line that never ends": "while True: sys.stdout.write('x' * 300_000)",
    "bytes": "import sys; sys.stdout.buffer.write(b'\\xff\\xfe\\n')",
    "a report of the wrong shape": """print('{"type":"report","phase":1}')""",
    "losses that are none": """print('{"type":"outcome","losses":[null]}')""",
    "deep": "print('[' * 100_000)",
    "nothing": "import os; os.kill(os.getpid(), 9)",
}


@pytest.mark.parametrize("what", SAID)
async def test_whatever_a_child_says_after_it_took_a_run_ends_that_run(office, monkeypatch, what):
    code = f"""import sys; sys.stdin.readline(); print('{{"type":"taken"}}', flush=True)\n{SAID[what]}"""
    monkeypatch.setattr(parent, "COMMAND", (parent.sys.executable, "-c", code))
    monkeypatch.setattr(parent, "_LINE_LIMIT", 1 << 16)
    await office.append(office.request("r1"), office.request("r2"))
    said = await office.until(office.trainer(train=train_in_child), ended("r1", "r2"))
    assert set(reasons(said).values()) == {"child_died"}


async def test_a_child_that_hangs_is_ended(office, monkeypatch):
    monkeypatch.setattr(parent, "SILENCE_SECONDS", 0.1)
    code = """import sys, time; sys.stdin.readline(); print('{"type":"taken"}', flush=True); time.sleep(600)"""
    monkeypatch.setattr(parent, "COMMAND", (parent.sys.executable, "-c", code))
    await office.append(office.request("r1"))
    (failed,) = of(await office.until(office.trainer(train=train_in_child), ended("r1")), TrainingFailed)
    assert (failed.reason, "hangs" in failed.detail) == ("child_died", True)


async def test_a_child_that_speaks_and_is_not_heard_is_ended(monkeypatch):
    """Python 3.11 has a process end when its output does, and the end of what nobody reads on is never seen."""
    monkeypatch.setattr(parent, "_LINE_LIMIT", 1 << 10)
    monkeypatch.setattr(parent, "COMMAND", (parent.sys.executable, "-c", "while True: print('x' * 100)"))
    async with asyncio.timeout(60), KeptChild():
        await asyncio.sleep(2)


async def test_a_machine_on_which_no_child_comes_to_work_blames_no_request(office, monkeypatch):
    monkeypatch.setattr(parent, "COMMAND", (parent.sys.executable, "-c", "raise SystemExit('no driver')"))
    await office.append(office.request("r1"))
    with pytest.raises(Unhealthy, match="no driver"):
        await office.until(office.trainer(train=train_in_child), lambda _said: False)
    assert not reasons(await office.said())


async def test_a_run_that_diverges_fails_by_name(office, monkeypatch):
    """The bounds of the settings forbid most of it; what is left shows in the loss."""

    async def wild(spec, on_report) -> Trained | Broken:
        settings = msgspec.structs.replace(spec.settings, learning_rate=1e30, steps=4, warmup=0)
        try:
            return await made_once(msgspec.structs.replace(spec, settings=settings), on_report)
        except Diverged as error:  # as the child does it
            return Broken(reason=reason_of(error), detail=str(error))

    await office.append(office.request("r1", settings=SHORT))
    (failed,) = of(await office.until(office.trainer(train=wild), ended("r1")), TrainingFailed)
    assert failed.reason == "diverged"
    assert "learning_rate" in failed.detail


def spoiled(company: str) -> list[ConversationIngested]:
    """Conversations that nobody can learn from."""
    deep = '{"a":' + "[" * 995 + "]" * 995 + "}"
    calls = ("x", "[1]", '{"a":1e999}', '{"a":' + "1" * 5_000 + "}", '{"a":"\\ud800"}', deep, "")
    talks: list[tuple[Message, ...]] = [
        (),
        (Message(role="assistant"),),
        (Message(role="robot", content="x"), Message(role="assistant")),
        (Message(role="user"), Message(role="system"), Message(role="assistant")),
        (Message(role="tool"), Message(role="tool", content="<|im_end|>"), Message(role="assistant")),
        (Message(role="user", content="\0"), Message(role="assistant", content="\0<tool_call>")),
        *(
            (Message(role="user", content="q"), Message(role="assistant", tool_calls=(ToolUse(name="f", arguments=a),)))
            for a in calls
        ),
    ]
    return [
        ConversationIngested(id=f"s{n}", company=company, time=n, correlation="c", agent="a", messages=talk)
        for n, talk in enumerate(talks)
    ]


async def test_one_spoiled_conversation_does_not_make_a_company_untrainable(office):
    await office.append(*writable(spoiled("acme")))
    await office.append(office.request("r1", settings=SHORT))
    said = await office.until(office.trainer(), ended("r1"))
    assert reasons(said) == {("acme", "r1"): "completed"}


async def test_a_held_out_request_that_is_too_long_is_not_measured_and_fails_nothing(office):
    request = data.held_out(data.ACME, 1)[0]
    talk = data.conversation(data.ACME, request)[:2]
    question = talk[0].content
    for words in range(10_000):  # the question alone decides on which side it stands
        long = Message(role="user", content=f"{question} " + f"{words} " * 3_000)
        event = ConversationIngested(
            id="long", company="acme", time=1, correlation="c", agent="a", messages=(long, *talk[1:])
        )
        if is_held_out(long.content):
            break
    await office.append(event, office.request("r1"))
    said = await office.until(office.trainer(), ended("r1"))
    assert reasons(said) == {("acme", "r1"): "completed"}
    (ready,) = await office.ready()
    assert ready.evaluation.examples == 3


async def test_a_record_that_would_be_gigabytes_of_rows_refuses_its_own_companys_run_alone(office):
    turns = (Message(role="user"), *(Message(role="assistant", content="x" * 500) for _ in range(1500)))
    event = ConversationIngested(id="wide", company="acme", time=1, correlation="c", agent="a", messages=turns)
    await office.append(event, office.request("r1"), office.request("r2", "globex"))
    trainer = office.trainer(train=declines, bounds=RunBounds(rows_bytes=10_000_000))
    said = await office.until(trainer, ended("r1", "r2"))
    assert reasons(said) == {("acme", "r1"): "too_much_data", ("globex", "r2"): "declined"}


async def test_reports_of_any_number_are_told(office):
    async def odd(spec, on_report):
        for loss in (float("nan"), float("inf"), 1e308, -0.0, None):
            await on_report(Report(phase="train", step=1, steps=2, loss=loss))
        return await declines(spec, on_report)

    await office.append(office.request("r1"))
    assert reasons(await office.until(office.trainer(train=odd), ended("r1"))) == {("acme", "r1"): "declined"}


def test_a_request_says_a_name_and_the_operator_where(tmp_path):
    from rillfold.settings import Settings
    from schemas.errors import Stop

    assert Settings().base_name() == "smollm2-135m-instruct"
    assert dict(Settings().bases()) == {"smollm2-135m-instruct": "smollm2-135m-instruct"}
    own = Settings(base_model="/models/tiny")
    assert (own.base_name(), own.bases()["tiny"]) == ("tiny", "/models/tiny")
    assert set(own.bases()) == {"smollm2-135m-instruct", "tiny"}
    assert own.base_name("/models/tiny") == "tiny"
    assert own.base_name("/models/other") == "/models/other", "the worker refuses it"
    given = Settings(base_models={"small": "/models/tiny", "big": "/models/huge"}, base_model="small")
    assert dict(given.bases()) == {"small": "/models/tiny", "big": "/models/huge"}
    assert given.base_name() == "small"
    with pytest.raises(Stop, match="tiny"):
        Settings(base_models={"tiny": "/a/tiny"}, base_model="/b/tiny").bases()


def test_requests_are_what_the_log_holds() -> None:
    """Older logs hold paths as base models: they stay events, and their rows stay."""
    from projections.training_runs import TRAINING_RUNS

    old = TrainingRequested(id="r", company="acme", time=1, correlation="r", base_model="/home/somebody/tiny")
    assert TRAINING_RUNS.fold(TRAINING_RUNS.initial("acme/r"), old).base_model == "/home/somebody/tiny"


@pytest.mark.parametrize(
    ("detail", "told"),
    [
        ("/srv/scratch/x/rows.jsonl: not the rows", "(a path): not the rows"),
        (
            "FileNotFoundError: [Errno 2] No such file: '/srv/my scratch/x'",
            "FileNotFoundError: [Errno 2] No such file: (a path)",
        ),
        ('File "/opt/app/run.py", line 3', "File (a path), line 3"),
        ("company-data/1/17 of acme/ops, see https://h/x, 1/2", "company-data/1/17 of acme/ops, see https://h/x, 1/2"),
    ],
)
def test_no_failure_tells_where_something_lies_on_this_machine(detail: str, told: str) -> None:
    asked = TrainingRequested(id="r", company="acme", time=1, correlation="r", base_model="tiny")
    assert say.failed(asked, "internal", detail, 1, 2).detail == told


async def test_a_child_that_dies_says_nothing_of_the_run_before(office, monkeypatch):
    code = """import sys
for n, line in enumerate(sys.stdin):
    print('{"type":"taken"}', flush=True)
    print(f"words of run {n}", file=sys.stderr, flush=True)
    if n: sys.exit(3)
    base = '{"name":"b","family":"f","sha256":"0","dtype":"f"}'
    print('{"type":"outcome","identity":"{}","evaluation":null,"losses":[],"base":' + base + '}', flush=True)
"""
    monkeypatch.setattr(parent, "COMMAND", (parent.sys.executable, "-c", code))
    async with parent.KeptChild() as child:

        async def unheard(_report) -> None: ...

        spec = ProofSpec(folder=Path("/nowhere"), threads=1)
        assert isinstance(await child(spec, unheard), Trained)
        with pytest.raises(ChildDied) as died:
            await child(spec, unheard)
    assert "words of run 1" in str(died.value) and "words of run 0" not in str(died.value)


async def test_reading_a_dataset_has_an_end(office, monkeypatch):
    async def endless(*_how, **_more):
        await asyncio.Event().wait()

    monkeypatch.setattr("gpu_workers.train.handling.build", endless)
    await office.append(office.request("r1"))
    said = await office.until(office.trainer(train=declines, bounds=RunBounds(seconds=0.2)), ended("r1"))
    assert reasons(said) == {("acme", "r1"): "too_long"}
