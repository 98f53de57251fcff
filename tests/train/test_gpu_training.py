"""On a GPU: the same run gives the same bytes there too, also when it was broken off, in each kind of numbers."""

from __future__ import annotations

import hashlib
import json
from typing import Any

import pytest
import torch

from gpu_workers.adapters.store import TENSORS
from gpu_workers.bases.device import Device
from gpu_workers.train.learn import loop
from gpu_workers.train.lines import Report, RunSpec, Trained
from gpu_workers.train.memory import device_memory
from gpu_workers.train.run import run
from processors.training.settings import METHOD_NAMES, TrainSettings
from tests.support.training import spec_for

pytestmark = [pytest.mark.gpu, pytest.mark.filterwarnings("ignore:.*invalid shape.*")]


class Broke(Exception): ...


def trained(spec: RunSpec) -> tuple[str, Trained]:
    outcome = run(spec, lambda _: None)
    return hashlib.sha256((spec.out / TENSORS).read_bytes()).hexdigest(), outcome


def breaks_off(report: Report) -> None:
    if report.phase == "train" and report.step == 2:
        raise Broke


@pytest.mark.parametrize("activation", ["always", "generation-prompt"])
@pytest.mark.parametrize("method", METHOD_NAMES)
def test_a_run_and_one_that_was_broken_off_give_the_same_bytes(tmp_path, tiny_base, method, activation):
    settings = TrainSettings(rank=4, steps=20, batch=4, warmup=1, evaluation_rows=0, activation=activation)
    whole, outcome = trained(spec_for(tmp_path, tiny_base, method, settings, "whole"))
    assert outcome.losses[-1] < outcome.losses[0]
    assert trained(spec_for(tmp_path, tiny_base, method, settings, "again"))[0] == whole
    broken = spec_for(tmp_path, tiny_base, method, settings, "broken")
    with pytest.raises(Broke):
        run(broken, breaks_off)
    assert trained(broken)[0] == whole


@pytest.mark.parametrize("precision", ["float32", "tf32", "bfloat16", "float16"])
def test_numbers_are_those_that_were_asked_for(tmp_path, tiny_base, precision):
    settings = TrainSettings(rank=4, steps=3, batch=4, warmup=1, evaluation_rows=0, precision=precision)
    sha256, outcome = trained(spec_for(tmp_path, tiny_base, "lora", settings, "one"))
    assert json.loads(outcome.identity)["machine"]["dtype"] == precision
    assert torch.backends.cuda.matmul.allow_tf32 == (precision == "tf32")
    assert trained(spec_for(tmp_path, tiny_base, "lora", settings, "two"))[0] == sha256


def test_the_memory_that_a_run_is_held_to_is_the_cards():
    size, on_gpu = device_memory()
    assert on_gpu and size == torch.cuda.get_device_properties(0).total_memory
    assert 0 < (Device.best().free() or 0) <= size


def test_a_step_waits_for_the_card_only_where_its_loss_is_read(tmp_path, tiny_base, monkeypatch, recwarn):
    """What else waited would leave the card idle in each step."""
    waits: list[int] = []
    step = loop.Loop._step

    def watched(self: loop.Loop, batch: Any) -> float:
        recwarn.clear()
        torch.cuda.set_sync_debug_mode("warn")
        try:
            return step(self, batch)
        finally:
            torch.cuda.set_sync_debug_mode("default")
            waits.append(len(recwarn.list))

    monkeypatch.setattr(loop.Loop, "_step", watched)
    settings = TrainSettings(rank=4, steps=6, batch=4, micro_batch=4, warmup=1, evaluation_rows=0)
    run(spec_for(tmp_path, tiny_base, "lora", settings, "watched"), lambda _: None)
    assert max(waits[3:]) <= 4, waits
