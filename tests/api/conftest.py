"""The API as a real server on loopback, over a log in memory and a secret store on disk."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
import uvicorn
from fastapi import FastAPI
from prometheus_client import CollectorRegistry

from rillfold.api.app import create_app
from rillfold.app.installed import OURS
from rillfold.http.keys import ApiKeys
from rillfold.http.wire import wire
from rillfold.settings import Settings
from rillfold.wiring import Services
from schemas.codec.codec import decode
from schemas.envelope import Origin
from schemas.topics import TOPICS, TopicNames
from streams.bridge.lookups import Lookups
from streams.bridge.secrets import FileSecrets
from streams.bridge.tools import Tools
from streams.log.kafka.producer import Producer
from streams.log.memory import MemoryLog
from streams.log.port import EventLog, TopicSpec
from streams.read_model.reads import Reads


class Api:
    """A running API, and what its operator sees of it."""

    def __init__(self, services: Services, url: str, registry: CollectorRegistry) -> None:
        self.services = services
        self.registry = registry
        self.url = url
        self.http = httpx.AsyncClient(base_url=url, trust_env=False, timeout=60)
        self.admin = services.keys.make(None)
        self.acme = services.keys.make("acme")
        self.globex = services.keys.make("globex")

    async def ask(self, method: str, path: str, key: str | None = None, **more: Any) -> httpx.Response:
        headers = {"Authorization": f"Bearer {key}"} if key else {}
        return await self.http.request(method, path, headers=headers | more.pop("headers", {}), **more)

    async def events(self, topic: str) -> list[Any]:
        log, found = self.services.log, []
        for partition, start in (await log.starts(topic)).items():
            async for batch in log.read(topic, partition, start):
                found += [decode(r.value, Origin(r.topic, r.partition, r.offset), r.timestamp) for r in batch]
        return found


@asynccontextmanager
async def listening(app: FastAPI, connections: int | None = None) -> AsyncIterator[str]:
    listener = socket.create_server(("127.0.0.1", 0))
    server = uvicorn.Server(uvicorn.Config(app, log_level="error", **wire(connections)))
    running = asyncio.create_task(server.serve([listener]))
    while not server.started:
        assert not running.done(), "the server ended while it started"
        await asyncio.sleep(0)
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        server.should_exit = True
        await running
        listener.close()


@pytest.fixture
async def empty_log() -> MemoryLog:
    log = MemoryLog()
    await log.create([TopicSpec(topic.name, topic.partitions, {}) for topic in TOPICS])
    return log


@asynccontextmanager
async def serving(
    folder: Path, log: EventLog, settings: Settings | None = None, connections: int | None = None, **more: Any
) -> AsyncIterator[Api]:
    names = TopicNames()
    async with Reads(None, "nobody") as nowhere:
        services = Services(
            settings=settings or Settings(data_dir=folder, company_rate=10_000, company_bytes=1 << 40),
            log=log,
            producer=Producer(log, names),
            tools=Tools(log, names),
            secrets=FileSecrets(folder / "secrets"),
            keys=ApiKeys.of(folder),
            **{"installed": OURS, "models": None, "reads": nowhere, "lookups": Lookups(), **more},
        )

        app = create_app(services)
        async with listening(app, connections) as url:
            api = Api(services, url, app.state.registry)
            async with api.http:
                yield api


@pytest.fixture
def serve() -> Callable[..., AbstractAsyncContextManager[Api]]:
    """(folder, log, more services) -> a running API."""
    return serving


@pytest.fixture
async def api(tmp_path: Path, empty_log: MemoryLog) -> AsyncIterator[Api]:
    async with serving(tmp_path, empty_log) as running:
        yield running
