"""Every figure of training, each beside its peer in processes of their own; `--only step,exact` for some of them.

Processor seconds, so that a busy machine weighs little; shuffled turns; medians.
"""

import sys

from bench.harness import options, report
from bench.part import Part, all_of, judged, wanted
from bench.train import killed, methods, outcomes, reading, steps
from bench.train.goals import AT_LEAST, AT_MOST
from bench.train.scene import Scene, scene

PARTS: list[Part[Scene]] = [part for module in (reading, steps, methods, killed, outcomes) for part in module.PARTS]


def main() -> None:
    parser = options(__doc__, runs=5, threads=2, steps=5)
    parser.add_argument("--only", type=lambda names: names.split(","), default=[], help="parts or figures, by comma")
    given = parser.parse_args()
    chosen = wanted(PARTS, given.only)
    with scene(given.runs, given.threads, given.steps) as stage:
        found, left_out = all_of(stage, chosen)
    figures = {key: each.ratio for key, each in found.ratios.items()} | dict(found.costs)
    for line in judged(figures, AT_LEAST, AT_MOST):
        print(line, file=sys.stderr)
    also = {"left_out": left_out, "partial": bool(given.only)}
    report(f"train {stage.base} float32", given.runs, found.results, found.ratios, found.costs, also)


if __name__ == "__main__":
    main()
