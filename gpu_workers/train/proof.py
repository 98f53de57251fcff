"""Does this machine still train? A tiny run of the worker's own, in the child: it has nothing of any request in it."""

import hashlib
from collections.abc import Callable
from pathlib import Path

import msgspec
from safetensors.torch import load_file

from gpu_workers.adapters.store import TENSORS
from gpu_workers.bases import tiny
from gpu_workers.bases.chat import render
from gpu_workers.bases.device import Device
from gpu_workers.errors import Diverged
from gpu_workers.train.lines import ProofSpec, Report, RunSpec, Trained
from gpu_workers.train.run import run
from processors.dataset.turns import Example, row
from processors.training.settings import TrainSettings
from schemas.company import Message

TALKS = 4


def prove(spec: ProofSpec, report: Callable[[Report], None]) -> Trained:
    """What every run does, on a model that is made here: load, learn, save. Raises whatever is in the way of it."""
    where = Device.best(spec.threads).named()

    def told(it: Report) -> None:
        report(msgspec.structs.replace(it, phase=f"{it.phase} on {where}"))

    told(Report(phase="make a model", step=0, steps=0))
    examples = [_example(number) for number in range(TALKS)]
    base = tiny.make(spec.folder / "base", [render((*each.prompt, each.answer)) for each in examples])
    outcome = run(_run_of(spec, base, examples), told)
    if not all(bool(tensor.isfinite().all()) for tensor in load_file(spec.folder / "out" / TENSORS).values()):
        raise Diverged(f"the adapter of a tiny run on {where} holds what is no number.")
    return outcome


def _run_of(spec: ProofSpec, base: Path, examples: list[Example]) -> RunSpec:
    rows = spec.folder / "rows.jsonl"
    rows.write_bytes(lines := b"".join(map(row, examples)))
    return RunSpec(
        rows=rows,
        rows_sha256=hashlib.sha256(lines).hexdigest(),
        out=spec.folder / "out",
        cache=spec.folder,
        base_model=str(base),
        method="lora",
        settings=TrainSettings(rank=2, alpha=4, steps=2, warmup=1, batch=2, micro_batch=2, evaluation_rows=0),
        threads=spec.threads,
    )


def _example(number: int) -> Example:
    question = Message(role="user", content=f"What is {number} and one?")
    answer = Message(role="assistant", content=f"It is {number + 1}.")
    return Example(topic="proof", partition=0, offset=number, turn=1, held_out=False, prompt=(question,), answer=answer)
