"""This checkout against an older one, bench by bench, in shuffled pairs, so that a slow minute hits both.

git worktree add ../old COMMIT && (cd ../old && python setup/native.py)
python -m bench.against ../old --pairs 9
"""

import argparse
import asyncio
import json
import random
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from statistics import median

from bench.against.takeover import takeover
from bench.events import Truth, Workload, fill
from bench.fold import EVENTS, KEYS
from bench.harness import Figures, machine
from bench.log import log
from bench.peers import child
from bench.produce import create
from schemas.codec.codec import encode

SEED = 20_261_126
HERE = child.CHECKOUT
Measure = Callable[[Path], Figures]

# Both run what their own checkout holds: the folder that a process starts in comes first on its path.
CODEC = """
import json
from bench.codec import BATCH, EVENTS, events, rate
try:
    from schemas.codec.codec import decode_batch, encode
    from streams.log.port import Record
except ImportError:  # a checkout from before the rooms had rooms
    from schemas.codec import decode_batch, encode
    from streams.log import Record
stream = events(EVENTS)
records = [Record("company-data", 0, n, 0, None, encode(event)) for n, event in enumerate(stream)]
def read():
    for start in range(0, EVENTS, BATCH):
        decode_batch("company-data", 0, records[start : start + BATCH])
def write():
    for event in stream:
        encode(event)
best = lambda work: max(rate(EVENTS, work)["events_per_s"] for _ in range(5))
print(json.dumps({"decode_batch_per_s": best(read), "encode_per_s": best(write)}))
"""
PRODUCE = """
import json, sys
import msgspec
from bench.events import event, key_numbers
from bench.produce import LOAD, measured, rillfold
rows = [msgspec.to_builtins(event(LOAD, n, key)) for n, key in enumerate(key_numbers(LOAD))]
print(json.dumps(measured(rillfold, sys.argv[1], rows)))
"""


# Of a whole bench in each checkout, on a stack of its own: whose figures, and how much it has to do.
WHOLE = {
    "restore": ("rillfold, empty disk", ("rows_per_s",), ("--rows", "1000000")),
    "query": ("fold and queries", ("events_per_s", "p99_ms"), ("--events", "500000")),
    "scale": ("two workers", ("events_per_s",), ("--events", "1000000")),
}


def main() -> None:
    given = arguments()
    dice = random.Random(SEED)
    print(f"On {machine()}")
    with log("against") as bootstrap:
        for name, measure in measures(bootstrap, given.benches).items():
            pairs = [pair(measure, given.old.resolve(), dice) for _ in range(given.pairs)]
            tell(name, pairs)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("old", type=Path, help="the older checkout, its C reader built")
    parser.add_argument("benches", nargs="*", default=["codec", "produce", "fold", *WHOLE, "takeover"])
    parser.add_argument("--pairs", type=int, default=9)
    return parser.parse_intermixed_args()


def measures(bootstrap: str, wanted: Sequence[str]) -> Mapping[str, Measure]:
    known = {"codec": snippet_of(CODEC), "produce": snippet_of(PRODUCE, bootstrap), "fold": fold_of(bootstrap)}
    known["takeover"] = partial(takeover, bootstrap)
    known |= {name: partial(_whole, name, *of) for name, of in WHOLE.items()}
    if "produce" in wanted:
        asyncio.run(create(bootstrap))
    return {name: known[name] for name in wanted}


def fold_of(bootstrap: str) -> Measure:
    load = Workload(EVENTS, KEYS)
    truths: list[Truth] = []

    def fold(checkout: Path) -> Figures:
        if not truths:
            truths.append(asyncio.run(fill(bootstrap, load, encode)))
        found = child.run("fold", child.python("rillfold_fold"), bootstrap, load.topic, truths[0], checkout=checkout)
        return {"events_per_s": found["events_per_s"], "events_per_cpu_s": 1e6 / found["cpu_s_per_million"]}

    return fold


def snippet_of(code: str, *arguments: str) -> Measure:
    return partial(_snippet, code, arguments)


def _snippet(code: str, arguments: Sequence[str], checkout: Path) -> Figures:
    done = subprocess.run([sys.executable, "-c", code, *arguments], cwd=checkout, check=True, capture_output=True)
    figures: Figures = json.loads(done.stdout.splitlines()[-1])
    return figures


def _whole(name: str, whose: str, figures: Sequence[str], options: Sequence[str], checkout: Path) -> Figures:
    """Waits as how many fit a second: the larger the better, as everywhere here."""
    line = [sys.executable, "-m", f"bench.{name}", "--runs", "1", "--json", *options]
    found = child.report(name, line, "bench", checkout)["results"][whose]
    return {figure: 1_000 / found[figure] if figure.endswith("_ms") else found[figure] for figure in figures}


def pair(measure: Measure, old: Path, dice: random.Random) -> tuple[Figures, Figures]:
    """(new, old), whichever came first."""
    order = [HERE, old]
    dice.shuffle(order)
    found = {checkout: measure(checkout) for checkout in order}
    return found[HERE], found[old]


def tell(name: str, pairs: Sequence[tuple[Figures, Figures]]) -> None:
    for figure in pairs[0][0]:
        ratios = sorted(new[figure] / old[figure] for new, old in pairs)
        spread = f"{ratios[0]:.3f} to {ratios[-1]:.3f}"
        print(
            f"{name} {figure}: new / old {median(ratios):.3f} ({spread}, {len(pairs)} pairs) on {machine()}", flush=True
        )


if __name__ == "__main__":
    main()
