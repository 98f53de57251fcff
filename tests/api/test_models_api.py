"""/v1 is forwarded with the company's scope; what streams, streams through."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from rillfold.wiring import to_models
from tests.support.raw_http import get, status, talk

JSON = "Content-Type: application/json"
MODELS = ("smollm2-135m-instruct", "acme/default", "globex/default")


class Said(web.HTTPException):
    def __init__(self, status: int) -> None:
        self.status_code = status
        super().__init__(text="globex", headers={"Location": "/x"})


class Worker:
    """The serving worker's side of the wire."""

    def __init__(self) -> None:
        self.url = ""
        self.asked: list[dict[str, Any]] = []
        self.headers: list[dict[str, str]] = []
        self.paths: list[str] = []
        self.says: int | None = None
        self.listed: bytes | None = None
        self.more = asyncio.Event()

    def _noted(self, request: web.Request) -> None:
        self.paths.append(request.raw_path)
        if self.says is not None:
            raise Said(self.says)

    async def anything(self, request: web.Request) -> web.Response:
        self._noted(request)
        return web.json_response({"secret": "globex"})

    async def models(self, request: web.Request) -> web.Response:
        self._noted(request)
        if self.listed is not None:
            return web.Response(body=self.listed, content_type="application/json")
        return web.json_response({"object": "list", "data": [{"id": name} for name in MODELS]})

    async def chat(self, request: web.Request) -> web.StreamResponse:
        self._noted(request)
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
    application.router.add_route("*", "/{rest:.*}", running.anything)
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
        to_models(worker.url) as models,
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
        to_models("http://127.0.0.1:9") as models,
        serve(tmp_path, empty_log, models=models) as api,
    ):
        answer = await api.ask("GET", "/v1/models", api.acme)
    assert (answer.status_code, answer.json()["error"]["code"]) == (503, "not_serving")


async def test_no_question_goes_out_on_a_connection_that_the_worker_may_have_ended(serve, empty_log, tmp_path) -> None:
    async def once(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """It keeps the connection, as it says, and ends it when a second question comes on it."""
        await reader.readuntil(b"\r\n\r\n")
        head = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 11\r\n\r\n"
        writer.write(head + b'{"data":[]}')
        await reader.read(1)
        writer.transport.abort()

    server = await asyncio.start_server(once, "127.0.0.1", 0)
    url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    async with server, to_models(url) as models, serve(tmp_path, empty_log, models=models) as api:
        answers = [await api.ask("GET", "/v1/models", api.acme) for _ in range(3)]
    assert [answer.status_code for answer in answers] == [200, 200, 200]


@pytest.mark.parametrize("dots", ["..", "%2e%2e", "%252e%252e", ".%2e", "..%2f.", "..;"])
@pytest.mark.parametrize("slash", ["/", "%2f", "%252f", "%5c", "//"])
async def test_no_path_leads_out_of_the_three_routes(api, worker: Worker, dots: str, slash: str) -> None:
    up = slash.join((dots, dots))
    body = json.dumps({"model": "globex/default", "messages": []}).encode()
    for path in (f"/v1/models/mine/{up}/chat/completions", f"/v1/models/mine/{up}{slash}..{slash}metrics",
                 f"/v1/models{slash}globex{slash}default", f"/v1/{up}/metrics", f"/v1/chat/completions/{up}/models",
                 f"/v1/models/acme{slash}{dots}{slash}globex{slash}default", f"/v1{slash}models?x={up}"):  # fmt: skip
        for method in ("GET", "POST"):
            answer = await talk(
                api.url, get(path, api.acme, "Content-Type: application/json", method=method, body=body)
            )
            assert status(answer) in (200, 404, 405, 422), answer
            assert b"globex" not in answer and b"secret" not in answer, (path, answer)
    assert worker.asked == []
    assert set(worker.paths) <= {"/v1/models"}


async def test_a_model_is_found_among_ones_own_and_nowhere_else(api, worker: Worker) -> None:
    for name, code in (
        ("acme/default", 200),
        (MODELS[0], 200),
        ("globex/default", 404),
        ("acme/none", 404),
        ("x", 404),
    ):
        answer = await api.ask("GET", f"/v1/models/{name}", api.acme)
        assert answer.status_code == code, name
        assert code == 404 or answer.json()["id"] == name
    assert (await api.ask("GET", "/v1/models/globex/default", api.admin)).json()["id"] == "globex/default"
    assert "/v1/models?name=acme%2Fnone" in worker.paths, "a name is a query's value, and no part of a path"
    assert {path.partition("?name=")[0] for path in worker.paths} == {"/v1/models"}
    assert not any("globex" in path for path in worker.paths[:-1])


async def test_the_worker_reads_what_was_checked_and_hears_for_whom(api, worker: Worker) -> None:
    twice = b'{"model": "globex/default", "messages": [], "model": "acme/default", "x": 1}'
    given = {"content": twice, "headers": {"Content-Type": "application/json", "X-Rillfold-Company": "globex"}}
    await api.ask("POST", "/v1/chat/completions?model=globex/default", api.acme, **given)
    assert worker.asked == [{"model": "acme/default", "messages": [], "x": 1}]
    assert worker.paths == ["/v1/chat/completions"]
    assert worker.headers[0]["X-Rillfold-Company"] == "acme"
    for model in (None, 1, ["acme/default"], {"a": 1}, True):
        refused = await api.ask("POST", "/v1/chat/completions", api.acme, json={"model": model, "messages": []})
        assert refused.status_code == 422
    for model in (
        "",
        "/",
        "acme",
        "acme/",
        "/default",
        "globex",
        "ACME/default",
        "acme2/default",
        " acme/default",
        "other-base",
    ):
        refused = await api.ask("POST", "/v1/chat/completions", api.acme, json={"model": model, "messages": []})
        assert refused.status_code == 404, model
    assert len(worker.asked) == 1


@pytest.mark.parametrize("said", [401, 403, 421, 500, 502, 503, 307])
async def test_what_the_worker_has_against_the_api_is_no_companys_concern(api, worker: Worker, said: int) -> None:
    worker.says = said
    for method, path in (("GET", "/v1/models"), ("POST", "/v1/chat/completions")):
        answer = await api.ask(method, path, api.acme, json={"model": "acme/default", "messages": []})
        assert (answer.status_code, answer.json()["error"]["code"]) == (503, "not_serving")
        assert answer.headers["retry-after"] == "5"


async def test_a_list_that_is_none_is_named(api, worker: Worker) -> None:
    for worker.listed in (b"", b"[]", b"{}", b'{"data": 1}', b'{"data": [1]}', b'{"data": [{"id": 1}]}', b"\xff"):
        answer = await api.ask("GET", "/v1/models", api.acme)
        assert (answer.status_code, answer.json()["error"]["code"]) == (503, "not_serving"), worker.listed
