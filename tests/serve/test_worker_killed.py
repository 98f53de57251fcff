"""`rillfold worker serve` as a process on a real broker, killed with -9 in the middle of its work."""

from __future__ import annotations

import asyncio
import json
import signal
from pathlib import Path

import httpx
import pytest

from rillfold.embedded.ports import free_port
from rillfold.embedded.stack import Endpoints
from schemas.inference import InferenceCompleted
from schemas.topics import TopicNames
from streams.log.kafka.log import KafkaLog
from tests.serve.test_inference import World, ready_event, request
from tests.support.workbench import Workbench, ask, make_workbench
from tests.support.worker import WorkerProcess, external

COUNT = 60


@pytest.fixture
def bench(tmp_path: Path) -> Workbench:
    return make_workbench(tmp_path)


def served(bench: Workbench, stack: Endpoints, names: TopicNames, port: int) -> WorkerProcess:
    """Its store is the folder that the workbench published to."""
    (bench.root / "data").mkdir()
    (bench.root / "data" / "adapters").symlink_to(bench.root / "store")
    more = {"CACHE_DIR": str(bench.root / "cache"), "BASE_MODEL": str(bench.base), "SERVE_PORT": str(port)}
    more |= {"SERVE_THREADS": "1", "SERVE_ROWS": "4"}
    settings = external(stack.bootstrap_servers, names.prefix, bench.root / "data", **more)
    return WorkerProcess("serve", ("worker", "serve"), settings, bench.root)


async def ready(http: httpx.AsyncClient, watched: str) -> None:
    """The watch looks once a second: the last result may be there before the look that sees the worker at work."""
    async with asyncio.timeout(30):
        while (answer := await http.get(f"{watched}/ready")).status_code != 200:
            assert answer.status_code == 503, answer.text
            await asyncio.sleep(0.1)


async def test_a_killed_worker_leaves_one_right_result_for_each_request(
    bench: Workbench, stack: Endpoints, names: TopicNames
) -> None:
    async with KafkaLog(stack.bootstrap_servers) as log:
        world = World(log, names)
        await world.create()
        spec = bench.adapter("acme/ops", seed=2)
        requests = [request(f"Number {i}?", "acme/ops" if i % 2 else None, max_tokens=40) for i in range(COUNT)]
        await world.say(ready_event(spec), *requests)
        port = free_port()
        worker = served(bench, stack, names, port)
        await asyncio.to_thread(worker.start().until_ready)
        await world.until("inference-result", lambda results: len(results) > COUNT // 6)
        worker.kill()
        assert len(await world.heard("inference-result")) < COUNT, "it was killed too late to show anything"
        await asyncio.to_thread(worker.start().until_ready)
        results = await world.results(COUNT)
        token = (bench.root / "data" / "operator" / "token").read_text()
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}") as http:
            assert (await http.get("/v1/models")).status_code == 401
            models = (await http.get("/v1/models", headers={"Authorization": f"Bearer {token}"})).json()["data"]
            watched = json.loads((bench.root / "data" / "run" / "serve-1.json").read_text())["url"]
            await ready(http, watched)
            figures = (await http.get(f"{watched}/metrics")).text
            assert "rillfold_inference_results_total" in figures
            assert "rillfold_serve_adapter_loads_total" in figures
        worker.send(signal.SIGTERM)
        assert await asyncio.to_thread(worker.ended) == 0
    assert {model["id"] for model in models} == {"base", "acme/ops", "acme/ops@1"}
    for i, asked in enumerate(requests):
        result = results[asked.id]
        assert isinstance(result, InferenceCompleted)
        assert result.text == bench.peft(spec if i % 2 else None, ask(f"Number {i}?", max_tokens=40))
