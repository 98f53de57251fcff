"""Every figure of serving, each beside its peers in the same process; `--only peft,flat_32` for some of them.

Processor seconds of one thread where nothing waits, so that a busy machine weighs little; shuffled turns; medians.
"""

import gc
import sys
import time
from collections.abc import Collection, Mapping

from bench.harness import options, report
from bench.serve import activated, batch, beside, cliff, flood, forced, load, ready, right
from bench.serve.goals import judged
from bench.serve.ours import Missing
from bench.serve.part import Found, Part, Run, together, wanted
from bench.serve.scene import Scene, scene

PARTS: list[Part] = [
    part for module in (batch, activated, forced, cliff, load, beside, flood, ready, right) for part in module.PARTS
]


def main() -> None:
    parser = options(__doc__, runs=5, slow=3, requests=10_000)
    parser.add_argument("--only", type=lambda names: names.split(","), default=[], help="parts or figures, by comma")
    given = parser.parse_args()
    chosen = wanted(PARTS, given.only)
    with scene(given.runs, given.slow, given.requests) as stage:
        found, left_out = _all(stage, chosen)
    for line in judged({key: each.ratio for key, each in found.ratios.items()} | dict(found.costs)):
        print(line, file=sys.stderr)
    also = {"left_out": left_out, "partial": bool(given.only)}
    report(f"serve {stage.base} float32", given.runs, found.results, found.ratios, found.costs, also)


def _all(stage: Scene, chosen: Mapping[Run, Collection[str]]) -> tuple[Found, dict[str, str]]:
    """All that was found, and what this engine cannot do, with the reason."""
    found: list[Found] = []
    left_out: dict[str, str] = {}
    for run, keys in chosen.items():
        began = time.time()
        try:
            found.append(run(stage, keys))
            print(f"{', '.join(keys)}: took {time.time() - began:.0f} s", file=sys.stderr)
        except Missing as why:
            left_out |= dict.fromkeys(keys, str(why))
            print(f"{', '.join(keys)}: left out: {why}", file=sys.stderr)
        gc.collect()
    return together(found), left_out
