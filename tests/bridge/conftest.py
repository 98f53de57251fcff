"""A company's API on loopback, as real as HTTP gets here, and what the bridge needs around it."""

from __future__ import annotations

import asyncio
import gzip
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from itertools import groupby
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from schemas.envelope import Event
from schemas.topics import BY_NAME, TopicNames
from streams.bridge.secrets import FileSecrets
from streams.log.outgoing import to_outgoing
from streams.log.port import EventLog, TopicSpec

USED = ("company-data", "automation-job", "tool-call", "tool-result", "dead-letter")
"""Topics of a bridge: each other one costs a broker four partitions a test."""


@dataclass
class Api:
    """Every request it saw, and one effect for each idempotency key."""

    base: str = ""
    requests: list[dict[str, Any]] = field(default_factory=list)
    effects: dict[str, Any] = field(default_factory=dict)
    arrived: asyncio.Event = field(default_factory=asyncio.Event)
    gate: asyncio.Event = field(default_factory=asyncio.Event)
    failures: int = 0

    async def answer(self, request: web.Request) -> web.StreamResponse:
        seen = {"path": request.path, "method": request.method, "headers": dict(request.headers)}
        arguments = await request.json() if request.can_read_body else dict(request.query)
        self.requests.append(seen | {"arguments": arguments})
        self.arrived.set()
        handler = getattr(self, f"_{request.match_info['mode']}")
        response: web.StreamResponse = await handler(request, arguments)
        return response

    async def _ok(self, request: web.Request, arguments: Any) -> web.StreamResponse:
        self.effects.setdefault(request.headers["Idempotency-Key"], arguments)
        return web.json_response({"done": arguments})

    async def _slow(self, request: web.Request, arguments: Any) -> web.StreamResponse:
        """Takes the effect at once, and answers when the test says so."""
        self.effects.setdefault(request.headers["Idempotency-Key"], arguments)
        await self.gate.wait()
        return web.json_response({"done": arguments})

    async def _flaky(self, request: web.Request, arguments: Any) -> web.StreamResponse:
        self.failures += 1
        if self.failures < 3:
            return web.Response(status=503)
        return await self._ok(request, arguments)

    async def _broken(self, request: web.Request, arguments: Any) -> web.StreamResponse:
        return web.Response(status=500, text="no")

    async def _missing(self, request: web.Request, arguments: Any) -> web.StreamResponse:
        return web.json_response({"error": "no such order"}, status=404)

    async def _redirect(self, request: web.Request, arguments: Any) -> web.StreamResponse:
        raise web.HTTPTemporaryRedirect("/ok")

    async def _bomb(self, request: web.Request, arguments: Any) -> web.StreamResponse:
        body = gzip.compress(b"\0" * 50_000_000)
        return web.Response(body=body, headers={"Content-Encoding": "gzip", "Content-Type": "text/plain"})

    async def _endless(self, request: web.Request, arguments: Any) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "text/plain"})
        await response.prepare(request)
        while True:
            await response.write(b"x" * 10_000)

    async def _binary(self, request: web.Request, arguments: Any) -> web.StreamResponse:
        return web.Response(body=b"\0\1", content_type="application/octet-stream")

    async def _echo(self, request: web.Request, arguments: Any) -> web.StreamResponse:
        return web.json_response(dict(request.headers))


@pytest.fixture
async def api() -> AsyncIterator[Api]:
    seen = Api()
    application = web.Application()
    application.router.add_route("*", "/{mode}", seen.answer)
    runner = web.AppRunner(application, shutdown_timeout=0)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    seen.base = f"http://127.0.0.1:{runner.addresses[0][1]}"
    yield seen
    seen.gate.set()
    await runner.cleanup()


@pytest.fixture
def secrets(tmp_path: Path) -> FileSecrets:
    return FileSecrets(tmp_path / "secrets")


@pytest.fixture
async def topics(log: EventLog, names: TopicNames) -> None:
    await log.create([TopicSpec(names.wire(name), BY_NAME[name].partitions, {}) for name in USED])


@pytest.fixture
def send(log: EventLog, names: TopicNames) -> Callable[..., Any]:
    """Each topic's after those of the topic before: a call that is there before its tool would be denied."""

    async def send(*given: Event) -> None:
        records = [to_outgoing(event, names) for event in given]
        for _, some in groupby(records, key=lambda record: record.topic):
            await log.append(list(some))

    return send
