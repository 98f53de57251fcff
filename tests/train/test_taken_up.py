"""Whatever dies, a run has one outcome; and the next worker on the machine takes it up where it was left."""

from __future__ import annotations

import asyncio
import logging
import random
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from gpu_workers.train import parent
from gpu_workers.train.lines import Broken, Report, RunSpec, Spec, Trained
from gpu_workers.train.parent import KeptChild, OnReport, Train
from gpu_workers.train.place import Workplace
from gpu_workers.train.run import run
from processors.training.settings import TrainSettings
from rillfold.demo import data
from schemas.topics import TopicNames
from schemas.training import TrainingAccepted, TrainingCompleted, TrainingProgressed
from streams.log.memory import MemoryLog
from tests.support.training import write_rows

from . import fake_child
from .test_hostile_requests import declines
from .test_trainer import ENDS, Crash, CrashingLog, Office, ended, of

LITTLE = TrainSettings(rank=2, steps=1, batch=2, warmup=0, evaluation_rows=0)


@pytest.fixture
async def office(tmp_path: Path, tiny_base: Path) -> Office:
    return await Office(MemoryLog(), TopicNames(), tmp_path, tiny_base).open()


@pytest.fixture(scope="module")
def fake(tiny_base: Path, tmp_path_factory) -> Iterator[None]:
    """Children are fakes, which end with an adapter that was really trained once."""
    made = tmp_path_factory.mktemp("made")
    manifest = write_rows(made / "rows.jsonl", data.ACME, 8, 3)
    spec = RunSpec(
        rows=made / "rows.jsonl", rows_sha256=manifest.rows_sha256, out=made, cache=made, base_model=str(tiny_base),
        method="lora", settings=LITTLE, threads=1,
    )  # fmt: skip
    (made / "trained.json").write_bytes(msgspec.json.encode(run(spec, lambda _report: None), enc_hook=str))
    with pytest.MonkeyPatch.context() as faked:
        faked.setattr(parent, "COMMAND", (sys.executable, str(Path(fake_child.__file__)), str(made)))
        yield


def keeping_each_step(child: KeptChild) -> Train:
    async def trains(spec: Spec, on_report: OnReport) -> Trained | Broken:
        return await child(msgspec.structs.replace(spec, checkpoint_seconds=0.0), on_report)

    return trains


async def stopped_at(office: Office, step: int, name: str = "one") -> None:
    """The worker and its child are gone when the log has heard of this step."""

    def reached(said) -> bool:
        return any(event.step >= step for event in of(said, TrainingProgressed))

    async with KeptChild() as child:
        await office.until(office.trainer(name=name, train=keeping_each_step(child)), reached, seconds=600)


@pytest.mark.usefixtures("fake")
async def test_a_run_is_taken_up_where_it_was_left_and_elsewhere_begins_again_with_the_same_bytes(
    tmp_path: Path, tiny_base: Path
) -> None:
    shas, begun = [], []
    for successor in ("one", "another machine"):
        office = await Office(MemoryLog(), TopicNames(), tmp_path / successor, tiny_base).open()
        await office.append(office.request("r1"))
        await stopped_at(office, 4)
        (left,) = (office.tmp_path / "scratch-one").glob("checkpoint-*")
        assert int((left / "step").read_text()) >= 4
        async with KeptChild() as child:
            said = await office.until(office.trainer(name=successor, train=child), ended("r1"))
        (ready,) = await office.ready()
        shas.append(ready.sha256)
        newest = of(said, TrainingAccepted)[-1].generation
        begun.append(min(event.step for event in of(said, TrainingProgressed) if event.generation == newest))
        assert not [*(office.tmp_path / f"scratch-{successor}").iterdir()], "nothing is kept when the outcome stands"
    assert len(set(shas)) == 1
    assert begun[0] > 4
    assert begun[1] == 1


REAL = parent.COMMAND
STICKS = """
import threading
from gpu_workers.train import child

def sticks(specs, voice, trains=child._train_all):
    from gpu_workers.train.learn.checkpoint import Checkpoints

    def kept(self, state, keep=Checkpoints.keep):
        if len(state()["losses"]) == 5:
            threading.Event().wait()
        keep(self, state)

    Checkpoints.keep = kept
    trains(specs, voice)

child._train_all = sticks
child.main()
"""
"""The real child, which stops for ever in the middle of its run: after its fifth step, before it keeps or says it."""


async def test_a_real_child_that_is_killed_in_the_middle_is_taken_up_and_ends_with_the_bytes_of_one_that_was_not(
    office: Office,
) -> None:
    eight = '{"rank": 2, "steps": 8, "batch": 2, "warmup": 1, "evaluation_rows": 0}'
    await office.append(office.request("killed", settings=eight))
    with pytest.MonkeyPatch.context() as command:
        command.setattr(parent, "COMMAND", (sys.executable, "-c", STICKS))
        await stopped_at(office, 4)
        command.setattr(parent, "COMMAND", REAL)
        await office.append(office.request("whole", settings=eight, role="other"))
        async with KeptChild() as child:
            said = await office.until(
                office.trainer(train=keeping_each_step(child)), ended("killed", "whole"), seconds=600
            )
    steps = [(event.run, event.step, event.generation) for event in of(said, TrainingProgressed)]
    newest = of([event for event in said if getattr(event, "run", "") == "killed"], TrainingAccepted)[-1].generation
    assert [step for run_, step, claim in steps if (run_, claim) == ("killed", newest)] == [5, 6, 7, 8]
    assert [step for run_, step, _ in steps if run_ == "whole"] == [*range(1, 9)]
    killed_, whole = await office.ready()
    assert [killed_.run, whole.run] == ["killed", "whole"]
    assert killed_.sha256 == whole.sha256


async def test_what_nobody_takes_up_any_more_is_swept_at_the_start(office: Office) -> None:
    place = Workplace("w", office.tmp_path / "scratch-one", office.tmp_path, 1, lambda: 1, {})
    for run_ in ("ended", "open", "nobody's"):
        for folder in (place.checkpoints("globex", run_), place.empty_folder("globex", run_, 1)):
            folder.mkdir(parents=True, exist_ok=True)
            (folder / "big").write_bytes(bytes(1000))
    (place.scratch / "keep").mkdir()
    await office.append(office.request("ended", "globex"))
    await office.until(office.trainer(name="elsewhere", train=declines), ended("ended"))
    await office.append(office.request("open", "globex"))
    under_way = asyncio.Event()

    async def looks(spec, on_report) -> Broken:
        left.update(path.name for path in place.scratch.iterdir())
        own.update({spec.out.parent.name, *(path.name for path in place.scratch.glob("alive-*"))})
        under_way.set()
        return await declines(spec, on_report)

    left: set[str] = set()
    own: set[str] = set()
    await office.until(office.trainer(train=looks), ended("open"))
    assert left == own | {"keep", place.checkpoints("globex", "open").name}
    assert len(own) == 2, "what is the living worker's"


KILLS = 6


async def killed(child: KeptChild, seconds: float) -> None:
    await asyncio.sleep(seconds)
    if child._child is not None:
        child._child._process.kill()


@pytest.mark.usefixtures("fake")
async def test_one_outcome_whatever_is_killed_and_whenever(office: Office) -> None:
    """The worker at one of its appends, before or after it, or the child at any moment, time after time."""
    seed = random.SystemRandom().randrange(1 << 32)
    logging.getLogger(__name__).warning("seed %d", seed)  # pytest shows it when this fails
    dice, runs = random.Random(seed), [f"r{n}" for n in range(3)]
    await office.append(*(office.request(run_) for run_ in runs))
    for kill in range(KILLS):
        log = CrashingLog(office.log, dice.randrange(1, 20), after=dice.random() < 0.5)
        async with KeptChild() as child:
            trainer = office.trainer(log, name=f"w{kill}", train=child)
            murder = asyncio.create_task(killed(child, dice.uniform(0.2, 3)))
            try:
                await office.until(trainer, ended(*runs), seconds=dice.uniform(0.3, 1.5))
            except (Crash, TimeoutError):
                continue
            finally:
                murder.cancel()
    async with KeptChild() as child:
        said = await office.until(office.trainer(name="last", train=child), ended(*runs))
    outcomes = Counter(event.run for event in said if isinstance(event, ENDS))
    assert outcomes == dict.fromkeys(runs, 1)
    ready = await office.ready()
    assert len({event.sha256 for event in ready}) <= 1, "and each adapter is the same, whoever made it"
    assert {event.sha256 for event in of(said, TrainingCompleted)} == {event.sha256 for event in ready}
    generations = [claim.generation for claim in of(said, TrainingAccepted)]
    assert generations == sorted(generations)


@pytest.mark.usefixtures("fake")
async def test_a_child_that_is_killed_is_one_failed_run_and_leaves_no_checkpoint(office: Office) -> None:
    await office.append(office.request("r1"), office.request("r2", role="other"))

    async with KeptChild() as child:

        async def killed_once(spec, on_report):
            async def kills(report: Report) -> None:
                await on_report(report)
                if report.step == 3 and not struck:
                    struck.append(report)
                    await killed(child, 0)

            return await child(spec, kills)

        struck: list[Report] = []
        said = await office.until(office.trainer(train=killed_once), ended("r1", "r2"))
    assert {event.run: event.type for event in said if isinstance(event, ENDS)} == {
        "r1": "training.failed",
        "r2": "training.completed",
    }
    assert not [*(office.tmp_path / "scratch-one").iterdir()]
