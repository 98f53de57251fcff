"""What the fold holds in memory: over five million events of few keys, and with a million keys."""

from __future__ import annotations

import argparse
from pathlib import Path
from tempfile import TemporaryDirectory

from bench.events import Workload
from bench.fold import Arena, log
from bench.harness import report, take_turns
from bench.peers import child
from rillfold.settings import from_env

LONG, WIDE = "5,000,000 events of 1,000 keys", "1,000,000 events of as many keys"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    with TemporaryDirectory(prefix="bench-memory-") as folder, log(from_env(), Path(folder)) as bootstrap:
        arena, fold = Arena(bootstrap), child.python("rillfold_fold")
        contestants = {
            LONG: arena.contestant("rillfold", fold, Workload(5_000_000, 1_000)),
            WIDE: arena.contestant("rillfold", fold, Workload(1_000_000, 1_000_000)),
        }
        results, _ = take_turns("memory", contestants, {}, given.runs)
    costs = {
        "growth from the millionth event on": results[LONG]["rss_growth"],
        "a GiB, with a million keys": results[WIDE]["peak_rss_mb"] / 1024,
    }
    report("memory", given.runs, results, {}, costs)


if __name__ == "__main__":
    main()
