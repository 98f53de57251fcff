"""A user's own projection against one of ours with the same work: a count per key over a million Avro events."""

from bench.events import Workload
from bench.fold import KEYS, Arena
from bench.harness import Ratio, options, report, take_turns
from bench.log import log
from bench.peers import child

EVENTS = 1_000_000
OURS, USERS = "a projection as ours are written", "the same by @app.projection"
RATIOS = {
    "app_over_ours": Ratio("events_per_s", USERS, OURS),
    "app_over_ours_warm": Ratio("warm_events_per_s", USERS, OURS),
    "app_over_ours_cpu": Ratio("cpu_s_per_million", USERS, OURS),
}


def main() -> None:
    given = options(__doc__, events=EVENTS).parse_args()
    with log("app") as bootstrap:
        arena, load = Arena(bootstrap), Workload(given.events, KEYS)
        contestants = {
            OURS: arena.contestant("ours", child.python("rillfold_app"), load),
            USERS: arena.contestant("app", child.python("rillfold_app", "--app"), load),
        }
        results, ratios = take_turns("app", contestants, RATIOS, given.runs)
    report("app", given.runs, results, ratios)


if __name__ == "__main__":
    main()
