"""python -m tests.kill: the long form. A line for each seed; a seed that fails leaves its history and every log."""

from __future__ import annotations

import argparse
import asyncio
import logging
import random
import shutil
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from tests.kill.fleet import LONG, SHORT, Size
from tests.kill.loop import run_seed
from tests.kill.world import History, scratch


def main() -> int:
    arguments = argparse.ArgumentParser(prog="python -m tests.kill", description=__doc__)
    arguments.add_argument("--seeds", type=int, default=10)
    arguments.add_argument("--first", type=int, help="the first seed; by chance if not given")
    arguments.add_argument("--events", type=int, help="how many; as its form has it if not given")
    arguments.add_argument("--only", default="", help="these actions alone, by their names, with commas between")
    arguments.add_argument("--short", action="store_true", help="the form that the tests run")
    arguments.add_argument("--keep", action="store_true", help="keep every seed's logs, not only a failed one's")
    chosen = arguments.parse_args()
    # A broker that is gone is no news here.
    logging.getLogger("aiokafka").setLevel(logging.CRITICAL + 1)
    first = random.SystemRandom().randrange(1 << 30) if chosen.first is None else chosen.first
    size = SHORT if chosen.short else LONG
    size = size._replace(events=chosen.events or size.events)
    only = [name for name in chosen.only.split(",") if name]
    held = [one(first + n, size, chosen.keep, only) for n in range(chosen.seeds)]
    _say(f"{sum(held)} of {len(held)} seeds hold")
    return 0 if all(held) else 1


def one(seed: int, size: Size, keep: bool, only: Sequence[str]) -> bool:
    began = time.monotonic()
    kept = Path(tempfile.gettempdir()) / f"rillfold-kill-{seed}"
    shutil.rmtree(kept, ignore_errors=True)
    with scratch() as folder:
        history = History(folder / "logs" / "history.jsonl")
        try:
            counts = asyncio.run(run_seed(seed, size, folder, history, only))
        except Exception as error:
            shutil.copytree(folder / "logs", kept)
            _say(f"seed {seed} FAILED after {time.monotonic() - began:.0f} s: {type(error).__name__}: {error}")
            _say(f"  injected: {history.counts}\n  history and logs: {kept}")
            return False
        if keep:
            shutil.copytree(folder / "logs", kept)
    _say(f"seed {seed} holds after {time.monotonic() - began:.0f} s: {dict(counts)}")
    return True


def _say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
