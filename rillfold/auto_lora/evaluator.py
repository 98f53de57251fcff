"""Measures any adapter on made conversations, as an iteration is measured."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import msgspec

from processors.dataset.lessons import Lesson, Talk, lessons
from processors.dataset.turns import is_held_out
from processors.synthetic.making import Made
from rillfold.auto_lora.config import AGENT, TrainingConfig
from rillfold.settings import from_env
from schemas.errors import Stop


class NothingHeldOut(Stop):
    """Conversations of which none is measured on."""


class ToolCallEvaluator:
    """Reads the base model once for each measurement."""

    def __init__(self, config: TrainingConfig | None = None) -> None:
        self._config = config or TrainingConfig()

    def evaluate(self, adapter: Path | str, dataset: Iterable[Made], out: Path | str | None = None) -> dict[str, Any]:
        """`tool_call_accuracy` and `base_accuracy`, and all that metrics.json says. With `out`, its files too."""
        rows = [row for made in dataset for row in _rows(made) if row.held_out]
        if not rows:
            raise NothingHeldOut("None of these is held out: measure on SyntheticDataGenerator.generate_held_out().")
        from gpu_workers.bases.before_torch import settle

        settle()
        from gpu_workers.adapters.store import must_hold_files
        from gpu_workers.bases import load
        from gpu_workers.bases.chat import Chat
        from gpu_workers.bases.device import Device
        from gpu_workers.evaluate.asking import Asker, Side
        from gpu_workers.evaluate.measure import CaseSizes, measure
        from gpu_workers.evaluate.told import metrics, wrong_answers
        from gpu_workers.evaluate.written import write

        must_hold_files(Path(adapter))
        settings, device = from_env(), Device.best(self._config.cores())
        model, tokenizer, _ = load.load(self._config.base(settings), settings.cache_dir, device)
        asker = Asker(model, Chat.of(tokenizer, model.generation_config.eos_token_id))
        measured = measure(asker, rows, Side(Path(adapter)), sizes=CaseSizes(held_out=len(rows), words=len(rows)))
        found = metrics(measured)
        if out is not None:
            write(Path(out), found, wrong_answers(measured))
        evaluation = measured.evaluation()
        shares = {
            "tool_call_accuracy": evaluation.after if evaluation else None,
            "base_accuracy": evaluation.before if evaluation else None,
        }
        told: dict[str, Any] = json.loads(msgspec.json.encode(found))
        return shares | told


def _rows(made: Made) -> Iterable[Lesson]:
    """As the dataset's rule makes them."""
    talk = Talk.of(AGENT, made.messages)
    return (row for row in lessons(talk, None, made.question, {}, is_held_out(made.question)) if row is not None)
