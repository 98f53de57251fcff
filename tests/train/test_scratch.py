"""Workers side by side on one machine: none takes another's folder away, and the dead ones' are swept."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from gpu_workers.train.handling import Handling
from gpu_workers.train.learn.checkpoint import Checkpoints
from gpu_workers.train.lines import Broken
from gpu_workers.train.place import Workplace
from schemas.topics import TopicNames
from streams.log.memory import MemoryLog

from .test_hostile_requests import declines
from .test_trainer import Office


def workplace(scratch: Path, name: str = "w", **more: object) -> Workplace:
    fields = {"worker": name, "scratch": scratch, "cache": scratch, "threads": 1, "clock": lambda: 1, "bases": {}}
    return Workplace(**fields | more)  # type: ignore[arg-type]


def test_a_folder_is_of_one_worker_and_one_claim(tmp_path: Path) -> None:
    mine, other = workplace(tmp_path), workplace(tmp_path)
    folders = [mine.empty_folder("acme", "r", 1), mine.empty_folder("acme", "r", 2), other.empty_folder("acme", "r", 1)]
    assert len(set(folders)) == 3, "also where two workers have one name"
    assert mine.checkpoints("acme", "r") == other.checkpoints("acme", "r"), "which is how a run is taken up"


def test_the_folders_of_the_living_stay_and_those_of_the_dead_are_swept(tmp_path: Path) -> None:
    mine, other = workplace(tmp_path), workplace(tmp_path)
    with mine.held():
        with other.held():
            kept = other.empty_folder("acme", "r", 1), other.proof_folder()
            mine.keep_only([], mine.left())
            assert all(folder.is_dir() for folder in kept)
            (tmp_path / f"alive-{other.owner}").rename(tmp_path / "aside")
        (tmp_path / "aside").rename(tmp_path / f"alive-{other.owner}")  # as one that is killed leaves it
        mine.keep_only([], mine.left())
        assert [path.name for path in tmp_path.iterdir()] == [f"alive-{mine.owner}"]
    assert not [*tmp_path.iterdir()]


async def test_who_loses_a_run_leaves_the_next_owners_folder_alone(tmp_path: Path, tiny_base: Path) -> None:
    office = await Office(MemoryLog(), TopicNames(), tmp_path, tiny_base).open()
    request, begun, dies, left = office.request("r1"), asyncio.Event(), asyncio.Event(), []
    await office.append(request)
    ends = await office.log.ends(office.names.wire("training-request"))
    (partition,) = (each for each, end in ends.items() if end)

    async def slow_to_die(_spec: object, _on_report: object) -> Broken:
        begun.set()
        await dies.wait()
        raise asyncio.CancelledError

    async def looks(spec, on_report) -> Broken:
        dies.set()
        await asyncio.gather(old, return_exceptions=True)
        left.extend(path.name for path in (spec.rows, spec.out) if path.exists())
        return await declines(spec, on_report)

    def handling(name: str, train) -> Handling:
        place = workplace(tmp_path / "one machine", name, bases={"tiny": office.base})
        return Handling(office.log, office.names, office.store, place, train, lambda: None)

    old = asyncio.create_task(handling("old", slow_to_die).handle(request, partition, 1))
    await begun.wait()
    await handling("new", looks).handle(request, partition, 2)
    assert left == ["rows.jsonl", "out"]
    assert not [*(tmp_path / "one machine").iterdir()]


def test_two_that_write_one_checkpoint_leave_a_whole_one(tmp_path: Path) -> None:
    old, new = (Checkpoints(tmp_path, "the run", 0.0) for _ in range(2))

    def interrupted() -> dict[str, int]:
        return {"step": 3}

    def between(*_: object) -> None:
        patch.undo()
        new.keep(lambda: {"step": 9})

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("os.fsync", between)
        old.keep(interrupted)
    assert new.read() in ({"step": 3}, {"step": 9})
    assert [path.name for path in tmp_path.iterdir()] == ["checkpoint"]


def test_the_drafts_of_one_that_was_killed_go_and_it_is_not_hurt(tmp_path: Path) -> None:
    old = Checkpoints(tmp_path, "the run", 0.0)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("os.fsync", lambda _: Checkpoints(tmp_path, "the run", 0.0).read())
        old.keep(lambda: {"step": 1})
    assert not [*tmp_path.iterdir()]
