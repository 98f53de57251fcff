"""`rillfold worker bridge`: calls of tools, out to the companies' APIs and back."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial

from rillfold.app.installed import installed
from rillfold.event_log import event_log, now
from rillfold.settings import Settings
from rillfold.wiring import secret_store
from rillfold.workers.run import Working, worker
from streams.bridge.tool_bridge import ToolBridge


@asynccontextmanager
async def _made(settings: Settings) -> AsyncIterator[Working]:
    """Call the companies' tools. The only process that opens their credentials."""
    stop = asyncio.Event()
    async with event_log(settings) as log:
        bridge = ToolBridge(
            log,
            settings.topic_names(),
            secret_store(settings),
            now,
            private=settings.allow_private_tools,
            patience=settings.tool_patience_seconds,
            kinds=installed(settings).auths,
        )
        yield Working(partial(bridge.run, stop), bridge.standing.sight, bridge.counts, stop=stop.set)


bridge = worker("bridge", _made)
