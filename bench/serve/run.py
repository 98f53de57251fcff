"""Every figure of serving, each beside its peers in the same process; `--only peft,flat_32` for some of them.

Processor seconds of one thread where nothing waits, so that a busy machine weighs little; shuffled turns; medians.
"""

import sys

from bench.harness import options, report
from bench.part import Part, all_of, judged, wanted
from bench.serve import activated, batch, beside, cliff, flood, forced, load, ready, right
from bench.serve.goals import AT_LEAST, AT_MOST
from bench.serve.scene import Scene, scene

PARTS: list[Part[Scene]] = [
    part for module in (batch, activated, forced, cliff, load, beside, flood, ready, right) for part in module.PARTS
]


def main() -> None:
    parser = options(__doc__, runs=5, slow=3, requests=10_000)
    parser.add_argument("--only", type=lambda names: names.split(","), default=[], help="parts or figures, by comma")
    given = parser.parse_args()
    chosen = wanted(PARTS, given.only)
    with scene(given.runs, given.slow, given.requests) as stage:
        found, left_out = all_of(stage, chosen)
    figures = {key: each.ratio for key, each in found.ratios.items()} | dict(found.costs)
    for line in judged(figures, AT_LEAST, AT_MOST):
        print(line, file=sys.stderr)
    also = {"left_out": left_out, "partial": bool(given.only)}
    report(f"serve {stage.base} float32", given.runs, found.results, found.ratios, found.costs, also)
