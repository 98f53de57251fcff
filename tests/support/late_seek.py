"""A fold worker whose first seek comes while its group gives out anew: `... -m tests.support.late_seek a`.

Each look at where its sources begin takes its time, as on a machine that is full.
"""

from __future__ import annotations

import asyncio
import sys
from typing import Any

from projections.company_tools import COMPANY_TOOLS
from rillfold.event_log import reached
from rillfold.settings import from_env
from streams.owner import app
from streams.owner.faust_seam import BatchThread
from streams.owner.shards import ShardOwner

BEGINS = "It begins to look where its sources begin."
LOOKS_FOR = 1.0


def slowly() -> None:
    taken, looked = list[object](), list[object]()
    own_begins, own_revoked = ShardOwner.begins, BatchThread.on_partitions_revoked

    async def revoked(thread: BatchThread, partitions: Any) -> None:
        taken.append(partitions)
        await own_revoked(thread, partitions)

    async def begins(owner: ShardOwner, *given: Any) -> Any:
        found = await own_begins(owner, *given)
        looked.append(found)
        sys.stdout.write(f"{BEGINS}\n")
        sys.stdout.flush()
        if len(looked) > 1:
            await asyncio.sleep(LOOKS_FOR)
        while len(taken) < 2:  # noqa: ASYNC110 - the first time there is nothing yet to take; by another thread
            await asyncio.sleep(0.001)
        return found

    owners: Any = ShardOwner
    threads: Any = BatchThread
    owners.begins, threads.on_partitions_revoked = begins, revoked


def main(name: str) -> None:
    slowly()
    settings = from_env()
    where, names = settings.data_dir / "workers" / name, settings.topic_names()
    group = f"{names.prefix}rillfold-{COMPANY_TOOLS.name}"
    app.run(app.Worker(reached(settings), group, name, where, names), [COMPANY_TOOLS])


if __name__ == "__main__":
    main(*sys.argv[1:])
