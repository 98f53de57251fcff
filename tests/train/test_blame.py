"""A run that broke, and whose fault it is: real children, in which a fault is put that is named so."""

from __future__ import annotations

import asyncio
import re
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import msgspec
import pytest

from gpu_workers.errors import Diverged, Unhealthy
from gpu_workers.train import blame, parent
from gpu_workers.train.child import reason_of
from gpu_workers.train.learn.loop import Loop
from gpu_workers.train.lines import Broken, ProofSpec, Trained
from gpu_workers.train.parent import KeptChild, Train
from schemas.topics import TopicNames
from schemas.training import TrainingAccepted, TrainingCompleted, TrainingFailed
from streams.log.memory import MemoryLog
from tests.support.made import train_here

from .test_hostile_requests import SHORT, declines, reasons
from .test_trainer import ENDS, Office, ended, of

POISON = msgspec.json.encode({**msgspec.json.decode(SHORT), "rank": 13}).decode()
"""Of the requests that break by what they ask for."""
CHILD = """
import os, torch
from gpu_workers.train import child
from gpu_workers.train.learn.loop import Loop
sound = Loop._step
def step(self, batch):
    poison = self._adapted.model.peft_config["default"].r == 13
{fault}
    return sound(self, batch)
Loop._step = step
child.main()
"""
FAULTS = {
    "a child that dies": "os.kill(os.getpid(), 9)",
    "a device that breaks": "raise RuntimeError('CUDA error: an illegal memory access was encountered')",
    "a memory that is full": "",
    "a device that computes what is no number": "",
}


@pytest.fixture
async def office(tmp_path: Path, tiny_base: Path) -> Office:
    return await Office(MemoryLog(), TopicNames(), tmp_path, tiny_base).open()


SECONDS = 280
"""A process that imports torch takes a minute where others want the machine, and a child that breaks takes two."""
IN_A_CHILD = ("a child that dies", "a device that breaks")


@asynccontextmanager
async def trained_with(what: str, when: str) -> AsyncIterator[Train]:
    """How runs are trained where a step has a fault: what ends a process in a real child, the rest in this one."""
    with pytest.MonkeyPatch.context() as faulty:
        if what in IN_A_CHILD:
            code = CHILD.format(fault=f"    if {when}: {FAULTS[what]}")
            faulty.setattr(parent, "COMMAND", (sys.executable, "-c", code))
            # It imports torch before it beats, and the machine may be busy.
            faulty.setattr(parent, "SILENCES", 50)
            async with KeptChild() as train:
                yield train
        else:
            faulty.setattr(Loop, "_step", faulty_step(what, when))
            yield answered_as_a_child_does


async def answered_as_a_child_does(spec, on_report) -> Trained | Broken:
    try:
        return await train_here(spec, on_report)
    except (Diverged, MemoryError) as error:
        return Broken(reason=reason_of(error), detail=str(error))


def faulty_step(what: str, when: str) -> Callable:
    sound = Loop._step

    def step(self, batch) -> float:
        if when == "True" or self._adapted.model.peft_config["default"].r == 13:
            if what == "a memory that is full":
                raise MemoryError("by the test")
            return float("nan")
        return sound(self, batch)

    return step


def as_it_is(train: Train) -> Train:
    return train


@pytest.mark.parametrize("what", [what for what in FAULTS if what != "a child that dies"])
async def test_a_machine_that_trains_nobody_ends_the_worker_at_the_first_run_and_fails_none(
    office: Office,
    what: str,
) -> None:
    await office.append(office.request("r1", settings=SHORT))
    async with trained_with(what, when="True") as train:
        with pytest.raises(Unhealthy, match=r"trains nobody") as ends:
            await office.until(office.trainer(train=train, machine=as_it_is), lambda _said: False, SECONDS)
    if what in IN_A_CHILD:
        assert re.search(r"on (cpu|cuda) \(\w+", str(ends.value)), "it says where to look"
        assert "ended with code 1: " in str(ends.value), "and did not abort"
    assert str(office.tmp_path / "scratch-one") in str(ends.value)
    assert "\n" not in str(ends.value)
    assert not list((office.tmp_path / "scratch-one").iterdir())
    assert not reasons(await office.said()), "and the request has no outcome"

    said = await office.until(office.trainer(name="two"), ended("r1"))
    assert [type(event) for event in said if isinstance(event, ENDS)] == [TrainingCompleted]
    claims = of(said, TrainingAccepted)
    assert [claim.worker for claim in claims] == ["one", "two"]
    assert len({claim.manifest for claim in claims}) == 1


@pytest.mark.parametrize("what", [what for what in FAULTS if what != "a device that breaks"])
async def test_a_request_that_breaks_whatever_trains_it_fails_alone_and_ends_no_worker(
    office: Office,
    what: str,
) -> None:
    companies = ("acme",) if what in IN_A_CHILD else ("acme", "globex")  # each costs the start of two processes there
    poison = [office.request("p", company, settings=POISON) for company in companies]
    await office.append(*poison, office.request("sound", "globex", settings=SHORT))
    async with trained_with(what, when="poison") as train:
        said = await office.until(
            office.trainer(train=train, machine=as_it_is), lambda said: len(reasons(said)) == len(poison) + 1, SECONDS
        )
    found = reasons(said)
    assert found.pop(("globex", "sound")) == "completed"
    assert len(set(found.values())) == 1
    assert len(of(said, TrainingFailed)) == len(poison) == len(found)


async def test_a_proof_that_never_ends_is_a_machine_that_trains_nobody(office: Office, monkeypatch) -> None:
    monkeypatch.setattr(blame, "PROOF_SECONDS", 0.3)

    async def hangs(spec, on_report):
        if isinstance(spec, ProofSpec):
            await asyncio.Event().wait()
        return Broken(reason="out_of_memory", detail="by the test")

    await office.append(office.request("r1", settings=SHORT))
    with pytest.raises(Unhealthy, match=r"no end in 0 seconds"):
        await office.until(office.trainer(train=hangs, machine=as_it_is), lambda _said: False)
    assert not reasons(await office.said())


async def test_what_a_run_says_of_itself_alone_needs_no_proof(office: Office) -> None:
    """A refusal by name is nobody's fault but the request's: no other waits for a proof of it."""
    proofs = []

    async def counts(spec, on_report):
        if isinstance(spec, ProofSpec):
            proofs.append(spec)
        return await declines(spec, on_report)

    await office.append(office.request("r1", settings=SHORT))
    said = await office.until(office.trainer(train=counts, machine=as_it_is), ended("r1"))
    assert (reasons(said), proofs) == ({("acme", "r1"): "declined"}, [])
