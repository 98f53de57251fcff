"""One training run, from a file of rows to a folder with an adapter. All that decides its bytes is in the spec."""

import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from itertools import islice
from math import isfinite
from pathlib import Path
from typing import Any

import msgspec
from peft import PeftModel, get_peft_model_state_dict
from safetensors.torch import save_file

from gpu_workers.adapters.store import CONFIG, TENSORS
from gpu_workers.bases import load as base_model
from gpu_workers.bases.chat import Chat
from gpu_workers.bases.device import Device
from gpu_workers.bases.files import BaseIdentity
from gpu_workers.errors import DatasetRefused, Diverged
from gpu_workers.evaluate.exact_match import accuracy, evaluate
from gpu_workers.train.learn.loop import train
from gpu_workers.train.learn.methods import METHODS
from gpu_workers.train.learn.samples import batches, fits, texts
from gpu_workers.train.lines import Report, RunSpec, Trained
from processors.dataset.lessons import Row, row_of, was_wrong
from processors.training.settings import TrainSettings
from schemas.adapters import Evaluation


def run(spec: RunSpec, report: Callable[[Report], None]) -> Trained:
    """Load, measure, train, measure again, save."""

    def told(phase: str, done: int, of: int, loss: float | None = None) -> None:
        report(Report(phase=phase, step=done, steps=of, loss=loss))

    device = Device.best(spec.threads)
    device.pin()
    model, tokenizer, base = base_model.load(spec.base_model, spec.cache, device, told, spec.base_name)
    chat = Chat.of(tokenizer)
    rows = _checked_rows(spec)
    learned = texts(chat, (row for row in rows if not row.held_out), spec.settings.max_tokens, spec.settings.tools)
    held_out = _to_measure(rows, chat, spec.settings)

    before = accuracy(evaluate(model, chat, held_out, on_done=partial(told, "evaluate before")))
    adapted = METHODS[spec.method](model, spec.settings)
    losses: list[float] = []
    for loss in train(adapted, batches(learned, spec.settings, chat.end), spec.settings):
        losses.append(_finite(loss, len(losses) + 1))
        told("train", len(losses), spec.settings.steps, loss)
    after = accuracy(evaluate(adapted, chat, held_out, on_done=partial(told, "evaluate after")))

    save(adapted, base, spec.out)
    measured = Evaluation(examples=len(held_out), before=before, after=after) if held_out else None
    return Trained(base=base, identity=_identity(spec, device), evaluation=measured, losses=tuple(losses))


def save(model: PeftModel, base: BaseIdentity, out: Path) -> None:
    """peft's own two files, with nothing in them that another run of the same spec would write otherwise."""
    tensors = {name: tensor.contiguous().cpu() for name, tensor in sorted(get_peft_model_state_dict(model).items())}
    save_file(tensors, out / TENSORS, metadata={"format": "pt"})
    config: dict[str, Any] = model.peft_config["default"].to_dict()
    config |= {"base_model_name_or_path": base.name, "revision": base.sha256, "inference_mode": True}
    plain = {key: sorted(value) if isinstance(value, set) else value for key, value in config.items()}
    plain["target_modules"] = sorted(plain["target_modules"])
    (out / CONFIG).write_text(json.dumps(plain, sort_keys=True, indent=2, default=str) + "\n")


def _checked_rows(spec: RunSpec) -> list[Row]:
    """The rows that the manifest speaks of, and no others."""
    lines = spec.rows.read_bytes()
    if hashlib.sha256(lines).hexdigest() != spec.rows_sha256:
        raise DatasetRefused(f"{spec.rows}: not the rows of the manifest ({spec.rows_sha256}). Build it again.")
    return list(_parsed(lines))


def _parsed(lines: bytes) -> Iterator[Row]:
    return (row_of(line) for line in lines.splitlines())


def _finite(loss: float, step: int) -> float:
    if isfinite(loss):
        return loss
    raise Diverged(f"the loss of step {step} is {loss}. Lower learning_rate or alpha, or raise warmup.")


def _to_measure(rows: Sequence[Row], chat: Chat, settings: TrainSettings) -> list[Row]:
    """Held-out requests whose right answer is a call; always the same ones, spread over the log.

    One that is longer than the run allows is passed over: it would cost the others their run.
    """
    calls = [row for row in rows if row.held_out and row.answer.tool_calls and not was_wrong(row)]
    calls.sort(key=lambda row: hashlib.sha256(msgspec.json.encode(row.prompt)).digest())
    fitting = (row for row in calls if fits(chat, row, settings.max_tokens, settings.tools))
    return list(islice(fitting, settings.evaluation_rows))


def _identity(spec: RunSpec, device: Device) -> str:
    facts = {
        "method": spec.method,
        "settings": msgspec.to_builtins(spec.settings),
        "tools_in_prompt": False,  # trained closed-book: it knows its company's tools by heart
        "machine": device.identity(),
    }
    return json.dumps(facts, sort_keys=True, separators=(",", ":"))
