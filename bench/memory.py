"""What the fold holds in memory: over five million events of few keys, and with a million keys."""

from bench.events import Workload
from bench.fold import Arena
from bench.harness import options, report, take_turns
from bench.log import log
from bench.peers import child

LONG, WIDE = "5,000,000 events of 1,000 keys", "1,000,000 events of as many keys"


def main() -> None:
    given = options(__doc__, runs=3).parse_args()
    with log("memory") as bootstrap:
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
