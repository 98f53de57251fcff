"""SIGTERM to a real process: who is served is served to the end, nobody else is let in, the log keeps what is open."""

from __future__ import annotations

import asyncio
import json
import signal
import subprocess
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from rillfold.embedded.ports import free_port
from rillfold.embedded.stack import Endpoints
from rillfold.http.operator import token_file
from rillfold.v1.drain import Drain
from schemas.inference import InferenceCompleted
from schemas.topics import TopicNames
from streams.log.kafka.log import KafkaLog
from tests.serve.test_inference import World, request
from tests.serve.test_serve_and_chat import Served
from tests.serve.test_worker_killed import served as worker_process
from tests.support.engine import FakeEngine
from tests.support.listening import OPERATOR, Listening
from tests.support.workbench import Workbench, make_workbench

CHAT: dict[str, Any] = {"model": "base", "messages": [{"role": "user", "content": "Who?"}]}
LONG = {**CHAT, "max_tokens": 900}


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Workbench:
    return make_workbench(tmp_path_factory.mktemp("drained"))


@contextmanager
def serving(folder: Path, bench: Workbench, **more: str) -> Iterator[tuple[subprocess.Popen[str], httpx.AsyncClient]]:
    served = Served(folder, bench)
    served._environment |= {f"RILLFOLD_{name}": value for name, value in more.items()}
    with served.serve() as worker:
        try:
            assert worker.stdout is not None
            while worker.stdout.readline() != "ready\n":
                assert worker.poll() is None
            token = token_file(folder / "data").read_text()
            yield worker, client(served.port, token)
        finally:
            worker.kill()


def client(port: int, token: str) -> httpx.AsyncClient:
    headers = {"Authorization": f"Bearer {token}"}
    return httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", headers=headers, timeout=60)


@asynccontextmanager
async def asked(http: httpx.AsyncClient, data: Path) -> AsyncIterator[asyncio.Task[httpx.Response]]:
    """A long answer that is under way."""
    question = asyncio.create_task(http.post("/v1/chat/completions", json=LONG))
    (told,) = (data / "run").glob("serve*.json")
    figures = json.loads(told.read_text())["url"]
    try:
        async with asyncio.timeout(30), httpx.AsyncClient() as plain:
            while "rillfold_serve_rows_running 1.0" not in (await plain.get(f"{figures}/metrics")).text:
                assert not question.done(), question.result().text
        yield question
    finally:
        question.cancel()


def whole(answer: httpx.Response) -> bool:
    assert answer.status_code == 200, answer.text
    return bool(answer.json()["usage"]["completion_tokens"] == LONG["max_tokens"])


async def test_what_is_under_way_ends_and_what_is_new_is_turned_away(tmp_path: Path, bench: Workbench) -> None:
    with serving(tmp_path, bench) as (worker, http):
        async with http, asked(http, tmp_path / "data") as question:
            worker.terminate()
            async with asyncio.timeout(10):
                while (health := await http.get("/health")).status_code == 200:  # noqa: ASYNC110
                    await asyncio.sleep(0.01)
            refused = await http.post("/v1/chat/completions", json=CHAT)
            assert not question.done()
            assert whole(await question)
        assert health.json() == {"alive": True, "draining": True} and health.headers["retry-after"] == "5"
        assert (refused.status_code, refused.headers["retry-after"]) == (503, "5")
        assert refused.json()["error"]["code"] == "engine_stopped"
        assert await asyncio.to_thread(worker.wait, 30) == 0


async def test_nobody_is_waited_for_without_end(tmp_path: Path, bench: Workbench) -> None:
    """More is under way than the few seconds hold that connections have to end."""
    with serving(tmp_path, bench, SERVE_DRAIN_SECONDS="0") as (worker, http):
        async with http, asked(http, tmp_path / "data") as question:
            more = [asyncio.create_task(http.post("/v1/chat/completions", json=LONG)) for _ in range(60)]
            while (await http.get("/v1/models")).status_code != 200:  # they came before this one
                pass
            worker.terminate()
            answers = await asyncio.gather(question, *more)
            cut = [answer for answer in answers if answer.status_code != 200]
            assert cut, "else they were all answered in time"
            assert {(answer.status_code, answer.headers.get("retry-after")) for answer in cut} == {(503, "5")}
            assert all(whole(answer) for answer in answers if answer not in cut)
            assert await asyncio.to_thread(worker.wait, 60) == 0


async def test_without_a_question_it_ends_at_once(tmp_path: Path, bench: Workbench) -> None:
    with serving(tmp_path, bench, SERVE_DRAIN_SECONDS="60") as (worker, http):
        async with http:
            assert (await http.get("/v1/models")).status_code == 200
            started = time.monotonic()
            worker.terminate()
            assert await asyncio.to_thread(worker.wait, 60) == 0
        assert time.monotonic() - started < 45, "a connection that is kept open is no question"


async def test_requests_of_the_log_stay_there_while_http_is_served(
    tmp_path: Path, stack: Endpoints, names: TopicNames
) -> None:
    bench = make_workbench(tmp_path)
    async with KafkaLog(stack.bootstrap_servers) as log:
        world = World(log, names)
        await world.create()
        worker = worker_process(bench, stack, names, port := free_port())
        await asyncio.to_thread(worker.start().until_ready)
        token = token_file(bench.root / "data").read_text()
        async with client(port, token) as http, asked(http, bench.root / "data") as question:
            requests = [request(f"Number {i}?", max_tokens=60) for i in range(40)]
            await world.say(*requests)
            await world.until("inference-result", lambda results: len(results) > 0)
            worker.send(signal.SIGTERM)
            assert whole(await question)
        assert await asyncio.to_thread(worker.ended) == 0
        before = len(await world.heard("inference-result"))
        assert before < len(requests), "it ended too late to show anything"
        await asyncio.to_thread(worker.start().until_ready)
        results = await world.results(len(requests))
        worker.send(signal.SIGTERM)
        assert await asyncio.to_thread(worker.ended) == 0
    assert set(results) == {each.id for each in requests}
    assert all(isinstance(each, InferenceCompleted) for each in results.values())


async def test_health_fails_with_the_engine(monkeypatch: pytest.MonkeyPatch) -> None:
    engine = FakeEngine()
    async with Listening(engine) as url, httpx.AsyncClient(base_url=url) as http:
        assert (await http.get("/health")).status_code == 200
        monkeypatch.setattr(engine, "alive", lambda: False)
        sick = await http.get("/health")
    assert (sick.status_code, sick.json(), sick.headers["retry-after"]) == (503, {"alive": False}, "5")


async def test_a_drain_counts_who_is_inside() -> None:
    engine = FakeEngine(shut=True)
    drain = Drain()
    async with Listening(engine, drain) as url, httpx.AsyncClient(base_url=url) as http:
        http.headers["Authorization"] = f"Bearer {OPERATOR.token}"
        question = asyncio.create_task(http.post("/v1/chat/completions", json=CHAT))
        while not engine.asked:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
        drain.begin()
        assert drain.open == 1 and not await drain.ended(0.1)
        assert (await http.get("/v1/models")).status_code == 503
        assert drain.open == 1
        engine.open()
        assert await drain.ended(10)
        assert (await question).status_code == 200
