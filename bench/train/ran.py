"""A child that does a whole training run, as the worker's child does: spec in, figures out."""

import hashlib
import json
import sys

from bench.train.clock import whole
from gpu_workers.adapters.store import TENSORS
from gpu_workers.bases.before_torch import settle
from gpu_workers.train.lines import Report, RunSpec, spec_of


def aloud(report: Report) -> None:
    """For whoever wants to end this child at some step."""
    print(json.dumps({"phase": report.phase, "step": report.step}), flush=True)


def main() -> None:
    settle()
    from gpu_workers.train.run import run  # only now: it imports torch

    spec = spec_of(json.loads(sys.argv[1]).encode())
    assert isinstance(spec, RunSpec)
    outcome = run(spec, aloud)
    measured = outcome.evaluation
    said = {
        "before": measured.before if measured else 0.0,
        "after": measured.after if measured else 0.0,
        "dataset_sha256": hashlib.sha256(spec.rows.read_bytes()).hexdigest(),
        "sha256": hashlib.sha256((spec.out / TENSORS).read_bytes()).hexdigest(),
    }
    print(json.dumps(whole() | said))


if __name__ == "__main__":
    main()
