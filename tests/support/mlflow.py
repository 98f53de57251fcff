"""MLflow's server as the suite has it: a fake that replays what a real one answered, and one for faults alone.

`python -m tests.support.mlflow URL` asks a real server (`mlflow server`) anew, and writes down what it answers.
"""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx

from schemas import training
from schemas.adapters import AdapterJudged, AdapterReady, Evaluation, RolloutDecided
from schemas.envelope import Event
from schemas.topics import TopicNames
from streams.log.memory import MemoryLog
from streams.log.outgoing import to_outgoing
from streams.log.port import TopicSpec
from streams.tracking.follower import TOPICS, RunFollower
from streams.tracking.mlflow import Mlflow

RECORDED = Path(__file__).parents[1] / "train" / "mlflow_answers.json"
PREFIX = "story-"
BEGAN = 1_764_000_000_000_000
RANGES = (training.OffsetRange(topic="company-data", partition=0, start=0, stop=9),)


def said(kind: type[Event], company: str, second: int, **fields: Any) -> Any:
    id_ = fields.pop("id", f"{kind.__name__}-{company}-{second}")
    return kind(id=id_, company=company, time=BEGAN + second * 1_000_000, correlation="c", **fields)


def accepted(company: str, run: str, second: int, generation: int = 1) -> Event:
    return said(
        training.TrainingAccepted, company, second, run=run, worker="w/1", generation=generation, ranges=RANGES,
        manifest="d" * 64, examples=9,
    )  # fmt: skip


def stepped(company: str, run: str, second: int, step: int, generation: int = 1, **figures: float) -> Event:
    told = {"phase": "train", "step": step, "steps": 4, "generation": generation, **figures}
    return said(training.TrainingProgressed, company, second, run=run, **told)


def requested(company: str, run: str, second: int, **wish: Any) -> Event:
    return said(training.TrainingRequested, company, second, id=run, base_model="tiny", role="desk", **wish)


def ready(company: str, run: str, second: int, **facts: Any) -> Event:
    return said(
        AdapterReady, company, second, adapter=f"{company}/desk", adapter_version=1, run=run, sha256="a" * 64,
        uri="file:///a", method="lora", rank=4, alpha=8.0, base_model="tiny", base_sha256="b" * 64, manifest="d" * 64,
        ranges=RANGES, seed=0, identity='{"machine":{"threads":2}}', **facts,
    )  # fmt: skip


def story() -> list[Event]:
    """One that ends well after its worker died once, one that is withdrawn, another company's that fails, and one that
    nobody accepted."""
    figures = json.dumps({"comparable": True, "floors": {"irrelevance": 0.8}, "suites": {"held out": {"won": 7}}})
    failed = {"run": "r-3", "reason": "diverged", "detail": "the loss of step 1 is nan.", "generation": 1}
    return [
        requested("acme", "r-1", 0, settings='{"steps":4,"select":{"origins":["synthetic"]}}'),
        accepted("acme", "r-1", 1),
        stepped("acme", "r-1", 2, 1, loss=2.5, tokens_per_second=90.0),
        stepped("acme", "r-1", 3, 2, loss=1.5),
        accepted("acme", "r-1", 4, generation=2),
        stepped("acme", "r-1", 5, 2, 2, loss=1.5),
        stepped("acme", "r-1", 6, 4, 2, loss=0.5, held_out_loss=0.75),
        said(
            AdapterJudged, "acme", 7, adapter="acme/desk", adapter_version=1, run="r-1", promoted=True,
            reason="better", detail="7 won", figures=figures,
        ),
        ready("acme", "r-1", 7, evaluation=Evaluation(examples=9, before=0.0, after=0.875)),
        said(
            training.TrainingCompleted, "acme", 8, run="r-1", adapter="acme/desk", sha256="a" * 64, seconds=8.0,
            generation=2,
        ),
        said(RolloutDecided, "acme", 9, adapter="acme/desk", adapter_version=1, percent=0, reason="refunds too much"),
        requested("acme", "r-2", 10),
        accepted("acme", "r-2", 11),
        said(training.TrainingWithdrawn, "acme", 12, run="r-2", reason="no more"),
        said(training.TrainingFailed, "acme", 13, run="r-2", reason="withdrawn", detail="", generation=1),
        requested("globex", "r-3", 14, settings='{"nonsense":1}'),
        accepted("globex", "r-3", 15),
        said(training.TrainingFailed, "globex", 16, **failed),
        requested("acme", "r-4", 17),
        said(training.TrainingRefused, "acme", 18, run="r-4", reason="no_data"),
    ]  # fmt: skip


async def log_of(events: list[Event]) -> MemoryLog:
    log, names = MemoryLog(), TopicNames()
    await log.create([TopicSpec(topic, 1) for topic in TOPICS])
    await log.append([to_outgoing(event, names) for event in events])
    return log


def client(transport: httpx.AsyncBaseTransport, url: str = "http://mlflow.test/its/path") -> httpx.AsyncClient:
    return httpx.AsyncClient(base_url=url, transport=transport, trust_env=False)


async def followed(log: MemoryLog, mlflow: Mlflow, **more: Any) -> RunFollower:
    """All that the log holds by now."""
    follower = RunFollower(log, TopicNames(), mlflow, **more)
    await through(follower, asyncio.create_task(follower.run()))
    return follower


async def through(follower: RunFollower, following: asyncio.Task[None]) -> None:
    """It has come to the log's end, and is stopped."""
    try:
        while await follower.behind():
            if following.done():
                following.result()
            await asyncio.sleep(0.001)
    finally:
        following.cancel()
        await asyncio.wait([following])


async def noted(asks: httpx.AsyncClient, prefix: str) -> dict[str, Any]:
    """What a server shows of the story by now, by our names of the runs."""
    api, found = "api/2.0/mlflow", {}
    for company in ("acme", "globex"):
        told = await asks.get(
            f"{api}/experiments/get-by-name", params={"experiment_name": f"{prefix}rillfold/{company}"}
        )
        experiment = told.json()["experiment"]["experiment_id"]
        runs = await asks.post(f"{api}/runs/search", json={"experiment_ids": [experiment], "max_results": 100})
        for run in runs.json()["runs"]:
            tags = {tag["key"]: tag["value"] for tag in run["data"]["tags"]}
            asked = {"run_id": run["info"]["run_id"], "metric_key": "loss"}
            losses = await asks.get(f"{api}/metrics/get-history", params=asked)
            found[tags["rillfold.run"]] = {
                "name": run["info"]["run_name"],
                "status": run["info"]["status"],
                "times": [run["info"]["start_time"], run["info"].get("end_time")],
                "tags": {name: value for name, value in tags.items() if name.startswith("rillfold.")},
                "params": {each["key"]: each["value"] for each in run["data"].get("params", [])},
                "metrics": {each["key"]: each["value"] for each in run["data"].get("metrics", [])},
                "losses": [(each["step"], each["value"]) for each in losses.json().get("metrics", [])],
                "datasets": [each["dataset"]["digest"] for each in run["inputs"].get("dataset_inputs", [])],
            }
    return found


class Recording(httpx.AsyncHTTPTransport):
    """To a real server, and writes down what it was asked and what it said."""

    def __init__(self) -> None:
        super().__init__()
        self.exchanges: list[dict[str, Any]] = []

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        answer = await super().handle_async_request(request)
        body = await answer.aread()
        self.exchanges.append({**asked(request), "status": answer.status_code, "answer": json.loads(body or b"null")})
        return httpx.Response(answer.status_code, content=body)


def asked(request: httpx.Request) -> dict[str, Any]:
    place = request.url.raw_path.decode().partition("/api/")[2]
    return {"method": request.method, "place": place, "body": json.loads(request.content or b"null")}


class FakeReplay(httpx.MockTransport):
    """No MLflow: it gives the answers of a real one to the very requests that were put to that, in their order."""

    def __init__(self) -> None:
        self._left: Iterator[dict[str, Any]] = iter(json.loads(RECORDED.read_text()))
        super().__init__(self._answer)

    def left(self) -> int:
        return len(list(self._left))

    def _answer(self, request: httpx.Request) -> httpx.Response:
        recorded = next(self._left)
        assert asked(request) == {name: recorded[name] for name in ("method", "place", "body")}
        answer = recorded["answer"]
        return httpx.Response(recorded["status"], content=b"" if answer is None else json.dumps(answer).encode())


class FakeMlflow(httpx.MockTransport):
    """No MLflow, and next to nothing of one: it finds what was made, and `wrong` says what goes wrong."""

    def __init__(
        self,
        wrong: Callable[[str, Any], httpx.Response | Exception | None] = lambda _place, _body: None,
        finds: bool = True,
    ) -> None:
        self.asked: list[tuple[str, Any]] = []
        self.heads: list[httpx.Headers] = []
        self._wrong, self._finds, self._runs = wrong, finds, dict[str, str]()
        super().__init__(self._answer)

    def made(self) -> list[str]:
        """Names of the runs that were made, without trials of whether any is taken."""
        names = [body["run_name"] for place, body in self.asked if place == "runs/create"]
        return [name for name in names if "/a trial" not in name]

    def _answer(self, request: httpx.Request) -> httpx.Response:
        place = request.url.path.partition("/mlflow/")[2] or "artifact"
        body = json.loads(request.content or b"null")
        if place == "experiments/get-by-name":
            body = request.url.params["experiment_name"]
        wrong = self._wrong(place, body)
        if isinstance(wrong, Exception):
            raise wrong
        if wrong is not None:
            return wrong
        self.asked.append((place, body))
        self.heads.append(request.headers)
        return httpx.Response(200, json=self._told(place, body))

    def _told(self, place: str, body: Any) -> Any:
        if place == "experiments/get-by-name":
            return {"experiment": {"experiment_id": body}}
        if place == "runs/create":
            key = body["tags"][0]["value"]
            self._runs[key] = f"run-{len(self._runs) + 1 if self._finds else len(self.made())}"
            return {"run": {"info": {"run_id": self._runs[key], "artifact_uri": "mlflow-artifacts:/a"}}}
        if place == "runs/search" and self._finds:
            there = [run for key, run in self._runs.items() if key in body["filter"]]
            return {"runs": [{"info": {"run_id": run}} for run in there]}
        return {}


async def record(url: str) -> None:
    """The story, then all of it again by one who knows nothing of the first."""
    transport = Recording()
    async with client(transport, url) as there:
        for _ in range(2):
            await followed(await log_of(story()), Mlflow(there, PREFIX))
            await noted(there, PREFIX)
    RECORDED.write_text(json.dumps(transport.exchanges, indent=1) + "\n")


if __name__ == "__main__":
    asyncio.run(record(sys.argv[1]))
