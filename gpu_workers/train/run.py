"""One training run, from a file of rows to a folder with an adapter. All that decides its bytes is in the spec."""

import hashlib
import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from math import isfinite
from typing import Any

from gpu_workers.adapters.origin import facts_in
from gpu_workers.bases import load as base_model
from gpu_workers.bases import nf4
from gpu_workers.bases.chat import Chat
from gpu_workers.bases.device import Device
from gpu_workers.bases.files import RULE_OF_WHOLE_IDENTITY, BaseIdentity
from gpu_workers.errors import BadPrecision, DatasetRefused, Diverged
from gpu_workers.evaluate.asking import Asker, Side
from gpu_workers.evaluate.measure import CaseSizes, Measured, measure
from gpu_workers.evaluate.told import metrics, wrong_answers
from gpu_workers.evaluate.written import write
from gpu_workers.train.learn.activation import generation_prompt
from gpu_workers.train.learn.checkpoint import Checkpoints
from gpu_workers.train.learn.loop import Loop, Stepped, steps_of
from gpu_workers.train.learn.methods import METHODS
from gpu_workers.train.learn.objectives import objective_of
from gpu_workers.train.learn.saved import save
from gpu_workers.train.lines import MADE_UP, MEASURED, Report, RunSpec, Trained
from processors.dataset.lessons import Row, row_of
from processors.measure.cases import of_nobodys_training, watched
from processors.training.promotion import LEAST
from processors.training.settings import TrainSettings, spelled

log = logging.getLogger(__name__)

Tell = Callable[[str, int, int], None]


def run(spec: RunSpec, report: Callable[[Report], None]) -> Trained:
    """Load, train, save, and measure what was saved."""

    def told(phase: str, done: int, of: int) -> None:
        report(Report(phase=phase, step=done, steps=of))

    device = device_of(spec)
    device.pin()
    model, chat, base = _base(spec, device, told)
    rows = _checked_rows(spec)
    objective = objective_of(rows, chat, spec.settings)
    steps = steps_of(spec.settings, objective.texts)
    trigger = generation_prompt(chat) if spec.settings.activation == "generation-prompt" else ()
    adapted = METHODS[spec.method](model, spec.settings, steps, trigger)
    loop = Loop(adapted, objective, spec.settings, steps)
    _train(loop, Checkpoints(spec.checkpoints, _deciding(spec, base, device), spec.checkpoint_seconds), steps, report)
    save(adapted, base, spec.out)
    found = None
    if spec.settings.evaluation_rows:  # else its weights are not laid out once more for nothing
        found = _measured(spec, base, Asker(adapted.model.unload(), chat), rows, partial(told, "measure"))
    return Trained(
        base=base,
        identity=_identity(spec, device),
        evaluation=found.evaluation() if found else None,
        losses=tuple(loop.losses),
        measures=found.measures if found else None,
    )


def _measured(
    spec: RunSpec, base: BaseIdentity, asker: Asker, rows: Sequence[Row], on_done: Callable[[int, int], None]
) -> Measured:
    """What was saved, beside what answers now. Who asks for the run does not choose how few cases the gate has."""
    settings = spec.settings
    candidate = Side(spec.out, settings.tools == "in-prompt")
    sizes = CaseSizes(max(settings.evaluation_rows, LEAST), settings.max_tokens, MADE_UP, spec.words)
    served = _served(spec, base)
    found = measure(asker, _asked(rows, settings, served), candidate, served, sizes, on_done)
    if served is None:
        found = found._replace(unasked=spec.served_version)
    write(spec.out.parent / MEASURED, metrics(found), wrong_answers(found))
    return found


def _asked(rows: Sequence[Row], settings: TrainSettings, served: Side | None) -> list[Row]:
    """Those that no side was trained on, nor chosen by. What the new version's selection holds out, another version's
    may have taught; the base model was taught none."""
    some = [row for row in rows if not (settings.patience and watched(row))]
    return [row for row in some if of_nobodys_training(row) or not row.held_out] if served else some


def _served(spec: RunSpec, base: BaseIdentity) -> Side | None:
    """None: nothing answers yet, or an adapter that cannot be asked on this base: one of another, or one that is not
    in this store."""
    facts = facts_in(spec.served) if spec.served else None
    if facts is None or facts.base_sha256 not in (base.sha256, base.weights_sha256):
        return None
    return Side(spec.served, facts.tools_in_prompt, spec.served_version)


def _train(loop: Loop, kept: Checkpoints, steps: int, report: Callable[[Report], None]) -> None:
    """On from where a run that was broken off left it."""
    if (state := kept.read()) is not None:
        loop.restore(state)
        log.warning("taken up after step %d of %d", len(loop.losses), steps)
    for done in loop.run():
        _finite(done)
        kept.keep(loop.state)
        report(
            Report(
                phase="train",
                step=done.number,
                steps=steps,
                loss=done.loss,
                held_out_loss=done.held_out_loss,
                tokens_per_second=done.tokens_per_second,
                seconds_left=done.seconds_left,
            )
        )


def device_of(spec: RunSpec) -> Device:
    """In the numbers that the settings ask for."""
    device, precision = Device.best(spec.threads), spec.settings.precision
    if precision == "auto":
        return device
    if precision == "float16" and device.kind == "cpu":
        raise BadPrecision("float16 is trained on a GPU alone: its small numbers vanish here. Set precision=bfloat16.")
    if precision == "float16" and spec.method == "adalora":
        raise BadPrecision("AdaLoRA weighs ranks by gradients, which overflow in float16. Set precision=bfloat16.")
    if precision == "tf32":
        if device.kind == "cpu":
            raise BadPrecision("TF32 is a way of GPUs to multiply; here is none. Set precision=float32.")
        return replace(device, dtype="float32", tf32=True)
    return replace(device, dtype=precision)


def _base(spec: RunSpec, device: Device, told: Tell) -> tuple[Any, Chat, BaseIdentity]:
    model, tokenizer, base = base_model.load(spec.base_model, spec.cache, device, told, spec.base_name)
    base = base.as_known_to(spec.settings.rule)
    if METHODS[spec.method].in_four_bits:
        nf4.quantise(model)
        base = base.quantised()
    older = spec.settings.rule < RULE_OF_WHOLE_IDENTITY
    return model, Chat.of(tokenizer, model.generation_config.eos_token_id, older=older), base


def _deciding(spec: RunSpec, base: BaseIdentity, device: Device) -> str:
    """All that the bytes of a run come from: what another run left is of no use to it."""
    return f"{spec.rows_sha256} {base.sha256} {_identity(spec, device)}"


def _checked_rows(spec: RunSpec) -> list[Row]:
    """The rows that the manifest speaks of, and no others."""
    lines = spec.rows.read_bytes()
    if hashlib.sha256(lines).hexdigest() != spec.rows_sha256:
        raise DatasetRefused(f"{spec.rows}: not the rows of the manifest ({spec.rows_sha256}). Build it again.")
    return list(_parsed(lines))


def _parsed(lines: bytes) -> Iterator[Row]:
    return (row_of(line) for line in lines.splitlines())


def _finite(done: Stepped) -> None:
    if not isfinite(done.loss):
        raise Diverged(f"the loss of step {done.number} is {done.loss}. Lower learning_rate or alpha, or raise warmup.")


def _identity(spec: RunSpec, device: Device) -> str:
    facts = {
        "method": spec.method,
        "settings": spec.settings,
        "tools_in_prompt": spec.settings.tools == "in-prompt",  # closed-book, it knows its tools by heart
        "machine": device.identity(),
    }
    return spelled(facts)
