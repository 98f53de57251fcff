"""A child that does a whole training run, as the worker's child does: spec in, figures out."""

import hashlib
import json
import sys
from functools import partial

from bench.train.clock import whole
from gpu_workers.adapters.store import CONFIG, TENSORS
from gpu_workers.bases.before_torch import settle
from gpu_workers.train.lines import Report, RunSpec, spec_of

TRAINS = "train"


def aloud(steps: list[int], report: Report) -> None:
    """For whoever wants to end this child at some step."""
    if report.phase == TRAINS:
        steps.append(report.step)
    print(json.dumps({"phase": report.phase, "step": report.step}), flush=True)


def _ranks(spec: RunSpec) -> list[int]:
    """The least and the most that a matrix has kept, where the method gives each its own."""
    pattern = json.loads((spec.out / CONFIG).read_text()).get("rank_pattern") or {}
    kept = [sum(each) if isinstance(each, list) else each for each in pattern.values()]
    return [min(kept), max(kept)] if kept else []


def main() -> None:
    settle()
    from gpu_workers.train.run import run  # only now: it imports torch

    spec = spec_of(json.loads(sys.argv[1]).encode())
    assert isinstance(spec, RunSpec)
    steps: list[int] = []
    outcome = run(spec, partial(aloud, steps))
    measured = outcome.evaluation
    said = {
        "first_step": min(filter(None, steps), default=0),
        "before": measured.before if measured else 0.0,
        "after": measured.after if measured else 0.0,
        "ranks": _ranks(spec),
        "dataset_sha256": hashlib.sha256(spec.rows.read_bytes()).hexdigest(),
        "sha256": hashlib.sha256((spec.out / TENSORS).read_bytes()).hexdigest(),
    }
    print(json.dumps(whole() | said))


if __name__ == "__main__":
    main()
