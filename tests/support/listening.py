"""The serving worker's app behind a real socket."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import openai
import pytest
import uvicorn

from rillfold.http.hosts import known_hosts
from rillfold.http.operator import Operator
from rillfold.http.wire import wire
from rillfold.v1.door import serving_app
from rillfold.v1.drain import Drain

OPERATOR = Operator("the-token", known_hosts())


class Listening:
    def __init__(self, engine: Any, drain: Drain | None = None) -> None:
        app = serving_app(engine, OPERATOR, drain)
        config = uvicorn.Config(app, "127.0.0.1", 0, log_level="warning", **wire())
        self._server = uvicorn.Server(config)

    async def __aenter__(self) -> str:
        self._serving = asyncio.create_task(self._server.serve())
        while not self._server.started:
            assert not self._serving.done()
            await asyncio.sleep(0.01)
        return f"http://127.0.0.1:{self._server.servers[0].sockets[0].getsockname()[1]}"

    async def __aexit__(self, *_: object) -> None:
        self._server.should_exit = True
        await self._serving


@pytest.fixture
async def url(engine: Any) -> AsyncIterator[str]:
    async with Listening(engine) as url:
        yield url


@pytest.fixture
async def client(url: str) -> AsyncIterator[openai.AsyncOpenAI]:
    async with openai.AsyncOpenAI(base_url=f"{url}/v1", api_key=OPERATOR.token, max_retries=0) as client:
        yield client
