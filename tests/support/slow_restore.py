"""A fold worker whose restore takes longer than its consumer may be idle: `... -m tests.support.slow_restore a`."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Mapping
from typing import Any

from projections.companies import COMPANIES
from rillfold.event_log import reached
from rillfold.settings import from_env
from streams.fold.shard import Shard
from streams.owner import app
from streams.owner.refill import refill

IDLE_SECONDS, RESTORE_SECONDS = 1.0, 5.0


async def slow_refill(shards: Mapping[Shard[Any], int], **options: Any) -> None:
    await asyncio.sleep(RESTORE_SECONDS)
    await refill(shards, **options)


def main(name: str) -> None:
    settings, own = from_env(), app._settings
    app._settings = lambda *given: own(*given) | {"broker_max_poll_interval": IDLE_SECONDS}
    app.refill = slow_refill
    where, names = settings.data_dir / "workers" / name, settings.topic_names()
    app.run(app.Worker(reached(settings), f"{names.prefix}rillfold", name, where, names), [COMPANIES])


if __name__ == "__main__":
    main(*sys.argv[1:])
