"""The headline figures on the real model: held-out exact match before, after, and under the wrong adapter."""

from __future__ import annotations

from pathlib import Path

import peft
import pytest
import torch

from gpu_workers.bases import load as base_model
from gpu_workers.bases.chat import Chat
from gpu_workers.evaluate.exact_match import accuracy, evaluate
from gpu_workers.train.lines import Outcome, Report, RunSpec
from gpu_workers.train.parent import train_in_child
from processors.dataset import parse_row
from processors.train_settings import TrainSettings
from rillfold.demo import data
from rillfold.settings import from_env
from tests.support.training import write_rows

pytestmark = [pytest.mark.model, pytest.mark.timeout(1_800)]
BASE = "smollm2-135m-instruct"


def spec_for(company: data.Company, folder: Path) -> RunSpec:
    (folder / "out").mkdir(parents=True)
    manifest = write_rows(folder / "rows", company, data.TALKS, data.REQUESTS)
    return RunSpec(
        rows=folder / "rows",
        rows_sha256=manifest.rows_sha256,
        out=folder / "out",
        cache=from_env().cache_dir,
        base_model=BASE,
        method="lora",
        settings=TrainSettings(**data.RECIPE),
        threads=torch.get_num_threads(),
    )


async def unheard(_report: Report) -> None: ...


async def test_each_company_gets_a_model_that_calls_its_tools_and_no_other(tmp_path):
    adapters = {}
    for company in data.COMPANIES:
        spec = spec_for(company, tmp_path / company.id)
        adapters[company.id] = spec.out
        outcome = await train_in_child(spec, unheard)
        assert isinstance(outcome, Outcome), outcome
        assert outcome.evaluation is not None
        assert outcome.evaluation.examples == data.REQUESTS
        assert outcome.evaluation.before < 0.1
        assert outcome.evaluation.after >= 0.95

    model, tokenizer, _ = base_model.load(BASE, from_env().cache_dir)
    chat = Chat.of(tokenizer)
    adapted = peft.PeftModel.from_pretrained(model, adapters["acme"], adapter_name="acme")
    adapted.load_adapter(adapters["globex"], adapter_name="globex")
    for own, other in (("acme", "globex"), ("globex", "acme")):
        lines = (tmp_path / other / "rows").read_bytes().splitlines()
        rows = [row for row in map(parse_row, lines) if row.held_out and row.answer.tool_calls]
        adapted.set_adapter(own)
        assert accuracy(evaluate(adapted, chat, rows)) < 0.1
