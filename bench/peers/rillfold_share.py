"""One of several workers of a group. Writes down, again and again, what it holds and how much it has folded."""

import json
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from time import perf_counter, process_time

from bench.peers.meter import job
from bench.peers.rillfold_fold import COUNTER, worker
from streams.owner import app as engine
from streams.owner.glance import Glance

LOOK_SECONDS = 0.02


@contextmanager
def telling(file: Path, glance: Glance) -> Iterator[None]:
    """From a thread of its own: a worker that waits for its partitions says so."""
    stop = threading.Event()

    def tell() -> None:
        while not stop.wait(LOOK_SECONDS):
            sight, (_, events) = glance.sight(), glance.counts()["events_folded"]
            holds = len(sight.positions) if sight.phase == "working" else 0
            new = file.with_suffix(".new")
            new.write_text(json.dumps({"holds": holds, "events": events, "at": perf_counter(), "cpu": process_time()}))
            new.rename(file)

    thread = threading.Thread(target=tell, daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


def main() -> None:
    given, name = job(), sys.argv[2]
    mine = worker(given, name)._replace(data_dir=Path(given.scratch) / name)
    engine.run(mine, [COUNTER], beside=lambda glance: telling(Path(given.scratch) / f"{name}.json", glance))


if __name__ == "__main__":
    main()
