"""What a company may have of what all share: runs and seconds a day, and the memory of the device."""

from __future__ import annotations

import json
from collections.abc import Iterable
from itertools import count
from typing import Any

import msgspec
import pytest

from gpu_workers.train import memory
from gpu_workers.train.lines import Broken, Report
from processors.training.admit import NotAdmitted, RunBounds, admit
from processors.training.quota import DAY, over
from processors.training.room import Shape, need, too_large
from processors.training.settings import TrainSettings
from projections.training_runs import ENDED, TRAINING_RUNS, Run
from schemas.codec.primitives import MAX_TIME
from schemas.envelope import Event
from schemas.topics import TopicNames
from schemas.training import (
    TrainingAccepted,
    TrainingCompleted,
    TrainingFailed,
    TrainingProgressed,
    TrainingRefused,
    TrainingRequested,
)
from streams.log.memory import MemoryLog
from streams.log.outgoing import to_outgoing
from streams.log.port import Outgoing

from .test_hostile_requests import declines, reasons
from .test_trainer import Office, ended, of

SECOND = 1_000_000
HOUR = 3600 * SECOND


@pytest.fixture
async def office(tmp_path, tiny_base) -> Office:
    return await Office(MemoryLog(), TopicNames(), tmp_path, tiny_base).open()


def ran(at: int, seconds: float = 10) -> Run:
    return Run(
        company="acme", run=str(at), accepted_at=at, worked=int(seconds * SECOND), updated_at=at + int(seconds * SECOND)
    )


def test_runs_of_a_day_count_until_their_last_word_is_a_day_old_and_the_refusal_says_when_the_next_may() -> None:
    bounds, begun, now = RunBounds(runs_a_day=2), [ran(HOUR), ran(5 * HOUR), ran(9 * HOUR)], 10 * HOUR
    refusal = over(bounds, begun, now)
    assert refusal is not None
    assert (refusal.reason, "3 runs" in refusal.detail) == ("over_quota", True)
    assert "1970-01-02 05:00:10 UTC" in refusal.detail
    assert over(bounds, begun, 5 * HOUR + 10 * SECOND + DAY - 1) is not None
    assert over(bounds, begun, 5 * HOUR + 10 * SECOND + DAY) is None
    assert over(RunBounds(), begun, now) is None


def test_a_claim_that_bears_a_date_long_past_hides_no_run_from_its_quota() -> None:
    """The first claim is the company's own word where it has the broker's key; how the run ended is the worker's."""
    for end in ends(9):
        run = told(ASKED, claim(-9 * DAY, 8, "evil"), claim(20, 9, "worker"), end)
        assert run.status in ENDED
        refusal = over(RunBounds(runs_a_day=1), [run], run.updated_at + HOUR)
        assert refusal is not None and refusal.reason == "over_quota"


def test_seconds_of_a_day_are_what_runs_worked_and_the_refusal_says_when_there_are_some_again() -> None:
    bounds, begun = RunBounds(seconds_a_day=100), [ran(HOUR, 60), ran(2 * HOUR, 30), ran(3 * HOUR, 20)]
    refusal = over(bounds, begun, 4 * HOUR)
    assert refusal is not None
    assert (refusal.reason, "110 seconds" in refusal.detail) == ("over_budget", True)
    assert "1970-01-02 01:01:00 UTC" in refusal.detail
    assert over(bounds, begun, HOUR + 60 * SECOND + DAY) is None
    assert over(RunBounds(seconds_a_day=111), begun, 4 * HOUR) is None


def told(*events: Event) -> Run:
    run = TRAINING_RUNS.initial("acme/r")
    for event in events:
        run = TRAINING_RUNS.fold(run, event)
    return run


def said(kind: type[Event], at: int, ids: Iterable[int] = count(), **fields: Any) -> Event:
    fields |= {"id": f"e{next(iter(ids))}", "company": "acme", "time": at, "correlation": "r", "run": "r"}
    return kind(**fields)


ASKED = TrainingRequested(id="r", company="acme", time=1, correlation="r", base_model="tiny")


def claim(at: int, generation: int, worker: str) -> Event:
    return said(TrainingAccepted, at, worker=worker, generation=generation, ranges=(), manifest="m", examples=1)


def step(at: int, generation: int, step: int, loss: float) -> Event:
    return said(TrainingProgressed, at, phase="train", step=step, steps=9, loss=loss, generation=generation)


def test_the_time_between_two_claims_is_nobodys() -> None:
    run = told(
        ASKED, claim(10, 1, "one"), step(30, 1, 1, 2.0), claim(9_000, 2, "two"), step(9_005, 2, 1, 2.0),
        said(TrainingFailed, 9_010, reason="withdrawn"),
    )  # fmt: skip
    assert (run.accepted_at, run.worked, run.status) == (10, 20 + 10, "failed")


def test_what_an_earlier_claim_still_says_changes_nothing_however_it_is_mixed() -> None:
    newer = [ASKED, claim(10, 4, "one"), claim(20, 7, "two"), step(30, 7, 2, 1.0)]
    zombie = [step(31, 4, 8, 9.0), claim(32, 4, "one"), step(33, 6, 8, 9.0)]
    assert told(*newer, *zombie) == told(*newer)
    assert told(*newer[:3], *zombie, *newer[3:]) == told(*newer)
    assert told(*newer, said(TrainingCompleted, 40, adapter="acme/default", sha256="s", seconds=1.0)).status == (
        "completed"
    )


def ends(generation: int) -> list[Event]:
    return [
        said(TrainingCompleted, 40, adapter="acme/default", sha256="s", seconds=1.0, generation=generation),
        said(TrainingFailed, 40, reason="too_long", generation=generation),
        said(TrainingRefused, 40, reason="no_data", generation=generation),
    ]


def test_how_an_earlier_claim_says_that_it_ended_is_no_outcome() -> None:
    newer = [ASKED, claim(10, 4, "one"), claim(20, 7, "two")]
    for late, outcome, of_an_older_release in zip(ends(6), ends(7), ends(0), strict=True):
        assert told(*newer, late) == told(*newer)
        assert told(*newer, late, outcome) == told(*newer, outcome)
        assert told(*newer, outcome).status in ENDED
        assert told(*newer, of_an_older_release).status in ENDED, "those had no number, and are believed"


def test_what_was_refused_once_it_was_read_counts_with_the_time_that_it_took() -> None:
    run = told(ASKED, said(TrainingRefused, 90 * SECOND, reason="no_data", read_seconds=60.0))
    assert (run.accepted_at, run.worked) == (0, 60 * SECOND)
    assert told(ASKED, said(TrainingRefused, 90 * SECOND, reason="bad_role")).worked == 0
    refusal = over(RunBounds(runs_a_day=1), [run], 100 * SECOND)
    assert refusal is not None and refusal.reason == "over_quota"
    refusal = over(RunBounds(seconds_a_day=60), [run], 100 * SECOND)
    assert refusal is not None and refusal.reason == "over_budget"
    assert over(RunBounds(runs_a_day=1, seconds_a_day=60), [run], 90 * SECOND + DAY) is None


async def test_a_run_that_was_read_for_nothing_is_one_of_the_day_and_one_that_was_not_read_is_none(
    office: Office,
) -> None:
    bounds = RunBounds(runs_a_day=2)
    unread = office.request("unread", "nobody", settings='{"steps": 0}')
    await office.append(unread, office.request("r0", "nobody"), office.request("r1", "nobody"))
    await office.until(office.trainer(train=declines, bounds=bounds), ended("unread", "r0", "r1"))
    await office.append(office.request("r2", "nobody"))
    said = await office.until(office.trainer(name="two", train=declines, bounds=bounds), ended("r2"))
    found = [reasons(said)["nobody", run] for run in ("unread", "r0", "r1", "r2")]
    assert found == ["bad_settings", "no_data", "no_data", "over_quota"]
    assert [event.read_seconds > 0 for event in of(said, TrainingRefused)] == [False, True, True, False]


async def test_a_run_over_the_quota_is_refused_by_a_worker_that_was_started_again_and_other_companies_train(
    office: Office,
) -> None:
    bounds = RunBounds(runs_a_day=2)
    await office.append(*(office.request(f"r{n}") for n in range(2)))
    await office.until(office.trainer(train=declines, bounds=bounds), ended("r0", "r1"))
    await office.append(*(office.request(f"r{n}") for n in range(2, 4)), office.request("g", "globex"))
    said = await office.until(office.trainer(name="two", train=declines, bounds=bounds), ended("r2", "r3", "g"))
    found = reasons(said)
    assert [found["acme", f"r{n}"] for n in range(4)] == ["declined", "declined", "over_quota", "over_quota"]
    assert found["globex", "g"] == "declined"
    assert all("UTC" in event.detail for event in of(said, TrainingRefused))


async def test_requests_that_lie_where_their_key_does_not_belong_are_of_the_same_quota(office: Office) -> None:
    """And one that lies in every partition has one outcome."""
    wire = office.names.wire("training-request")
    count = len(await office.log.starts(wire))

    def lying(run: str, partition: int) -> Outgoing:
        return to_outgoing(office.request(run), office.names)._replace(partition=partition)

    bounds = RunBounds(runs_a_day=1)
    await office.log.append([lying("r0", partition) for partition in range(count)])
    await office.until(office.trainer(train=declines, bounds=bounds), ended("r0"))
    for run, partition in zip(("r1", "r2", "r3"), range(count), strict=False):
        await office.log.append([lying(run, partition)])
        await office.until(office.trainer(name=run, train=declines, bounds=bounds), ended(run))
    said = of(await office.said(), (TrainingFailed, TrainingRefused))
    assert [(event.run, event.reason) for event in said] == [
        ("r0", "declined"),
        *((run, "over_quota") for run in ("r1", "r2", "r3")),
    ]


async def test_a_claim_that_nobody_can_be_above_is_none(office: Office) -> None:
    asked = office.request("r1")
    said: dict[str, Any] = {"id": "c", "company": "acme", "time": 1, "correlation": "r1", "run": "r1"}
    claim = TrainingAccepted(**said, worker="evil", generation=2**63 - 1, ranges=(), manifest="0" * 64, examples=1)
    await office.append(claim, asked)
    ends = await office.until(office.trainer(train=declines), ended("r1"))
    assert reasons(ends) == {("acme", "r1"): "declined"}


async def test_a_run_beyond_the_budget_is_refused_and_one_that_waits_is_too_when_its_turn_comes(office: Office) -> None:
    """The office's clock goes one microsecond a look: a run takes some of them."""

    async def works(spec, on_report) -> Broken:
        for step in range(1, 9):
            await on_report(Report(phase="train", step=step, steps=8))
        return Broken(reason="declined", detail="by the test")

    bounds = RunBounds(seconds_a_day=5e-6)
    await office.append(office.request("r0"), office.request("r1"))
    found = reasons(await office.until(office.trainer(train=works, bounds=bounds), ended("r0", "r1")))
    assert found == {("acme", "r0"): "declined", ("acme", "r1"): "over_budget"}


SHAPE = Shape(hidden=4096, layers=32, inner=12288, vocabulary=151936, attention=4096, shared=1024, tied=False)
"""Of a model of eight billion weights."""
GIB = 1 << 30


def test_a_run_that_cannot_fit_is_refused_by_what_it_needs_and_what_there_is() -> None:
    settings = TrainSettings(max_tokens=4096, micro_batch=8)
    needed = need(SHAPE, "lora", settings, longest=1 << 20, on_gpu=True)
    assert 13 * GIB < needed.base < 15 * GIB
    refusal = too_large(needed, 24 * GIB)
    assert refusal is not None
    assert refusal.reason == "too_large"
    assert f"{needed.total / GIB:.1f} GiB" in refusal.detail
    assert "24.0 GiB" in refusal.detail
    assert too_large(needed, needed.total) is None


@pytest.mark.parametrize(
    "fewer",
    [{"micro_batch": 1}, {"gradient_checkpointing": True}, {"max_tokens": 128}, {"rank": 1}, {"precision": "bfloat16"}],
    ids=str,
)
def test_each_remedy_takes_less(fewer: dict) -> None:
    much = TrainSettings(max_tokens=4096, micro_batch=8)
    changed = TrainSettings(**{"max_tokens": 4096, "micro_batch": 8, **fewer})
    assert need(SHAPE, "lora", changed, 1 << 20, False).total < need(SHAPE, "lora", much, 1 << 20, False).total


def test_a_row_of_dpo_is_two_texts_of_which_each_may_be_as_long_as_any() -> None:
    def activations(objective: str, longest: int) -> int:
        settings = TrainSettings(max_tokens=1000, objective=objective)
        return need(SHAPE, "lora", settings, longest, True).activations

    most = activations("supervised", 1 << 20)
    assert activations("dpo", 1 << 20) == 2 * most, "both answers are in memory until the way back"
    assert activations("kto", 1 << 20) == most, "one text at a time; the other is only looked at"
    for longest in (400, 4000):
        assert activations("dpo", longest) == activations("supervised", longest), "the row holds both, its prompt once"
    assert most < activations("dpo", 6000) == activations("supervised", 4000) * 6000 // 4000


def test_four_bits_take_less_and_short_rows_are_no_long_ones() -> None:
    settings = TrainSettings(max_tokens=131_072)
    assert need(SHAPE, "qlora", settings, 100, True).base < need(SHAPE, "lora", settings, 100, True).base / 2
    assert need(SHAPE, "lora", settings, 100, True).activations < GIB


def test_the_base_is_reckoned_as_its_file_has_it(tiny_base) -> None:
    shape = memory.shape_of(str(tiny_base))
    assert shape is not None
    stored = sum(file.stat().st_size for file in tiny_base.glob("*.safetensors"))
    reckoned = need(shape, "lora", TrainSettings(), 0, on_gpu=False).base
    assert 0.95 * stored < reckoned <= stored


def test_a_base_without_a_readable_config_is_not_reckoned(tmp_path) -> None:
    (tmp_path / "config.json").write_text("[]")
    assert memory.shape_of(str(tmp_path)) is None
    assert memory.shape_of("smollm2-135m-instruct") is None
    assert memory.device_memory()[0] > 0


async def test_a_worker_refuses_what_its_device_has_no_memory_for(office: Office) -> None:
    await office.append(office.request("r1"))
    small = office.trainer(train=declines, memory=lambda: (1 << 18, False))
    (refused,) = of(await office.until(small, ended("r1")), TrainingRefused)
    assert refused.reason == "too_large"
    assert "0.2 MiB" in refused.detail


def ask(settings: dict) -> TrainSettings | NotAdmitted:
    request = TrainingRequested(
        id="r", company="acme", time=1, correlation="r", base_model="tiny", settings=json.dumps(settings)
    )
    return admit(request, ("lora", "adalora"), lambda _base: None, RunBounds())


async def test_epochs_are_bounded_by_what_there_is_to_learn_from(office: Office) -> None:
    await office.append(office.request("r1", settings='{"epochs": 3}'), office.request("r2", settings='{"epochs": 1}'))
    bounds = RunBounds(texts=30)
    said = await office.until(office.trainer(train=declines, bounds=bounds), ended("r1", "r2"))
    assert reasons(said) == {("acme", "r1"): "too_much", ("acme", "r2"): "declined"}
    assert "3 epochs" in next(event.detail for event in of(said, TrainingRefused))
    assert isinstance(ask({"epochs": 1000, "steps": 1_000_000}), TrainSettings), "steps say nothing where epochs do"


@pytest.mark.parametrize("seconds", [1.7e302, -1.0, 5.0])
def test_whatever_an_event_says_of_time_a_quota_is_reckoned(seconds: float) -> None:
    said: dict[str, Any] = {"id": "e", "company": "acme", "time": MAX_TIME, "correlation": "r", "run": "r"}
    refused = TrainingRefused(**said, reason="too_much_data", read_seconds=seconds)
    run = TRAINING_RUNS.fold(TRAINING_RUNS.initial("acme/r"), refused)
    begun = [run, msgspec.structs.replace(run, accepted_at=MAX_TIME)]
    for bounds in (RunBounds(runs_a_day=1), RunBounds(seconds_a_day=1)):
        refusal = over(bounds, begun, 10)
        assert refusal is None or "Send it again after 9999-12-31" in refusal.detail
    assert over(RunBounds(runs_a_day=1), begun, 10) is not None
