"""/v1 is forwarded with the company's scope; what streams, streams through."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from aiohttp import web

MODELS = ("smollm2-135m-instruct", "acme/default", "globex/default")


class Worker:
    """The serving worker's side of the wire."""

    def __init__(self) -> None:
        self.url = ""
        self.asked: list[dict[str, Any]] = []
        self.headers: list[dict[str, str]] = []
        self.more = asyncio.Event()

    async def models(self, request: web.Request) -> web.Response:
        return web.json_response({"object": "list", "data": [{"id": name} for name in MODELS]})

    async def chat(self, request: web.Request) -> web.StreamResponse:
        self.asked.append(await request.json())
        self.headers.append(dict(request.headers))
        if not self.asked[-1].get("stream"):
            return web.json_response({"error": {"message": "slow down"}}, status=429, headers={"Retry-After": "7"})
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        await response.write(b"data: first\n\n")
        await self.more.wait()
        await response.write(b"data: second\n\n")
        return response


@pytest.fixture
async def worker() -> AsyncIterator[Worker]:
    running, application = Worker(), web.Application()
    application.router.add_get("/v1/models", running.models)
    application.router.add_post("/v1/chat/completions", running.chat)
    runner = web.AppRunner(application, shutdown_timeout=0)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    running.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    yield running
    running.more.set()
    await runner.cleanup()


@pytest.fixture
async def api(worker: Worker, serve, empty_log, tmp_path: Path) -> AsyncIterator[Any]:
    async with (
        httpx.AsyncClient(base_url=worker.url, trust_env=False) as models,
        serve(tmp_path, empty_log, models=models) as running,
    ):
        yield running


async def test_each_company_sees_the_base_model_and_its_own_adapters(api) -> None:
    for key, names in ((api.acme, MODELS[:2]), (api.globex, (MODELS[0], MODELS[2])), (api.admin, MODELS)):
        listed = (await api.ask("GET", "/v1/models", key)).json()
        assert [model["id"] for model in listed["data"]] == list(names)
    assert (await api.ask("GET", "/v1/models")).status_code == 401


async def test_another_companys_adapter_is_not_asked(api, worker: Worker) -> None:
    for path, body in (
        ("/v1/chat/completions", {"model": "acme/default", "messages": []}),
        ("/v1/chat/completions", {"model": "acme/default@1", "messages": []}),
    ):
        assert (await api.ask("POST", path, api.globex, json=body)).status_code == 404
    assert (await api.ask("GET", "/v1/models/acme/default", api.globex)).status_code == 404
    assert (await api.ask("POST", "/v1/embeddings", api.globex, json={"model": "x"})).status_code == 404
    assert (await api.ask("POST", "/v1/chat/completions", api.globex, content=b"{")).status_code == 422
    assert worker.asked == []


async def test_the_credential_stays_here_and_the_answers_status_passes(api, worker: Worker) -> None:
    body = {"model": "acme/default", "messages": [{"role": "user", "content": "hi"}]}
    answer = await api.ask("POST", "/v1/chat/completions", api.acme, json=body)
    assert (answer.status_code, answer.headers["retry-after"]) == (429, "7")
    assert worker.asked == [body]
    assert "Authorization" not in worker.headers[0]


async def test_a_stream_arrives_while_it_is_made(api, worker: Worker) -> None:
    body = {"model": "acme/default", "messages": [], "stream": True}
    headers = {"Authorization": f"Bearer {api.acme}"}
    async with api.http.stream("POST", "/v1/chat/completions", json=body, headers=headers) as answer:
        lines = answer.aiter_lines()
        assert await anext(lines) == "data: first"
        worker.more.set()
        assert "data: second" in [line async for line in lines]


async def test_a_worker_that_is_away_is_named(serve, empty_log, tmp_path: Path) -> None:
    async with (
        httpx.AsyncClient(base_url="http://127.0.0.1:9", trust_env=False) as models,
        serve(tmp_path, empty_log, models=models) as api,
    ):
        answer = await api.ask("GET", "/v1/models", api.acme)
    assert (answer.status_code, answer.json()["error"]["code"]) == (503, "not_serving")
