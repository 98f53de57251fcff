"""A count per key over a million Avro events: our fold against four others that read the same topic.

Every contestant runs alone, in a process of its own, and must arrive at the truth, or there is no figure.
Stock Faust is slow, so it gets the first 40,000 of the same events.
"""

import asyncio
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

from bench.events import Truth, Workload, fill
from bench.harness import Contestant, Figures, Ratio, options, report, take_turns
from bench.log import log
from bench.peers import child
from bench.peers.kafka_streams import build as kafka_streams
from rillfold.settings import from_env
from schemas.codec.codec import encode

EVENTS, KEYS = 1_000_000, 1_000
FAUST_EVENTS = 40_000
MORE_KEYS = (100_000, 1_000_000)
US = "rillfold"
QUIX = "Quix Streams"
REAL = "rillfold, the counter and four real projections"
EXACTLY_ONCE, AT_LEAST_ONCE = "Kafka Streams exactly_once_v2", "Kafka Streams at_least_once"
RATIOS = {
    "quix": Ratio("events_per_s", US, QUIX),
    "faust": Ratio("events_per_s", US, "stock Faust"),
    "plain": Ratio("events_per_s", US, "plain aiokafka"),
    "kafka_streams": Ratio("events_per_s", US, EXACTLY_ONCE),
    "kafka_streams_warm": Ratio("warm_events_per_s", US, EXACTLY_ONCE),
    "kafka_streams_cpu": Ratio("cpu_s_per_million", US, EXACTLY_ONCE),
    "kafka_streams_memory": Ratio("peak_rss_mb", US, EXACTLY_ONCE),
    "real_projections": Ratio("events_per_s", REAL, US),
    "kafka_streams_at_least_once": Ratio("events_per_s", US, AT_LEAST_ONCE),
    "kafka_streams_at_least_once_warm": Ratio("warm_events_per_s", US, AT_LEAST_ONCE),
}


class Arena:
    """A log, the topics in it, and the truth about each."""

    def __init__(self, bootstrap: str) -> None:
        self._bootstrap = bootstrap
        self._truths: dict[Workload, Truth] = {}

    def contestant(self, name: str, command: child.Command, load: Workload) -> Contestant:
        return partial(self._run, name, command, load)

    def _run(self, name: str, command: child.Command, load: Workload) -> Figures:
        if load not in self._truths:
            self._truths[load] = asyncio.run(fill(self._bootstrap, load, encode))
        return child.run(name, command, self._bootstrap, load.topic, self._truths[load])


def main() -> None:
    parser = options(__doc__, events=EVENTS)
    parser.add_argument("--more-keys", type=int, nargs="*", default=MORE_KEYS)
    given = parser.parse_args()
    with TemporaryDirectory(prefix="bench-fold-") as folder, log("fold") as bootstrap:
        class_path = kafka_streams.build(from_env(), Path(folder) / "classes")
        contestants = all_contestants(Arena(bootstrap), Workload(given.events, KEYS), class_path)
        results, ratios = take_turns("fold", contestants, RATIOS, given.runs)
        costs: dict[str, float] = {}
        for keys in given.more_keys:
            more = many_keys(Arena(bootstrap), Workload(given.events, keys))
            ratio = {f"quix_{keys}_keys": Ratio("events_per_s", *more)}
            further, quotients = take_turns(f"fold, {keys} keys", more, ratio, given.runs)
            costs |= growth(results, further, keys)
            results, ratios = {**results, **further}, {**ratios, **quotients}
    report("fold", given.runs, results, ratios, costs)


def growth(few: Mapping[str, Figures], more: Mapping[str, Figures], keys: int) -> dict[str, float]:
    """What more keys cost: CPU seconds added to a million events, ours for each of Quix's; and as a multiple of each.

    The multiple alone would look better if the few keys cost more.
    """
    pairs = [
        (few[name]["cpu_s_per_million"], more[f"{name}, {keys:,} keys"]["cpu_s_per_million"]) for name in (US, QUIX)
    ]
    (ours, ours_more), (quix, quix_more) = pairs
    return {
        f"cpu_added_to_{keys}_keys": (ours_more - ours) / (quix_more - quix),
        f"cpu_multiple_to_{keys}_keys, {US}": ours_more / ours,
        f"cpu_multiple_to_{keys}_keys, {QUIX}": quix_more / quix,
    }


def all_contestants(arena: Arena, load: Workload, class_path: str) -> Mapping[str, Contestant]:
    few = load._replace(events=min(load.events, FAUST_EVENTS))
    return {
        US: arena.contestant("rillfold", child.python("rillfold_fold"), load),
        REAL: arena.contestant("rillfold-real", child.python("rillfold_fold", "--real"), load),
        EXACTLY_ONCE: arena.contestant("streams-eos", kafka_streams.command(class_path, "exactly_once_v2"), load),
        "plain aiokafka": arena.contestant("plain", child.python("plain"), load),
        AT_LEAST_ONCE: arena.contestant("streams-alo", kafka_streams.command(class_path, "at_least_once"), load),
        QUIX: arena.contestant("quix", child.python("quix"), load),
        "stock Faust": arena.contestant("faust", child.python("faust_stock"), few),
    }


def many_keys(arena: Arena, load: Workload) -> Mapping[str, Contestant]:
    return {
        f"{US}, {load.keys:,} keys": arena.contestant("rillfold", child.python("rillfold_fold"), load),
        f"{QUIX}, {load.keys:,} keys": arena.contestant("quix", child.python("quix"), load),
    }


if __name__ == "__main__":
    main()
