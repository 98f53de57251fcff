"""One seed of the loop in its short form. `make kill` runs the long form."""

from __future__ import annotations

import asyncio
import random
import sys

import pytest

from tests.kill.fleet import SHORT
from tests.kill.loop import run_seed
from tests.kill.world import History, scratch


@pytest.mark.timeout(900)
def test_whatever_is_killed_the_rows_are_the_fold_of_the_log() -> None:
    seed = random.SystemRandom().randrange(1 << 30)
    sys.stdout.write(f"seed {seed}: python -m tests.kill --short --seeds 1 --first {seed}\n")
    with scratch() as folder:
        history = History(folder / "logs" / "history.jsonl")
        try:
            counts = asyncio.run(run_seed(seed, SHORT, folder, history))
        finally:
            sys.stdout.write(f"who was killed when:\n{history.path.read_text()}")
    sys.stdout.write(f"{dict(counts)}\n")
    # What the seed was to inject did happen.
    assert counts["kill -9 fold"] >= SHORT.kills
    assert counts["dead"] > 100
    assert counts["repeats"] > 500
    once = (
        "second group",
        "retention",
        "loss accepted",
        "truncation accepted",
        "registry learns",
        "a late batch refused",
        "join",
    )
    assert {each: counts[each] for each in once} == dict.fromkeys(once, 1)
    assert counts["deploy"] == 2
    assert counts["sent again from letters"] > 0
    assert counts["losses named"] > 0
