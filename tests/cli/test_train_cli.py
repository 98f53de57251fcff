"""Training as a stranger does it: commands, a worker of its own, a real broker, and a kill -9 in the middle."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from projections.lora_adapters import LORA_ADAPTERS
from projections.training_runs import ENDED, TRAINING_RUNS, Run
from rillfold.demo import data
from rillfold.embedded.stack import Endpoints
from rillfold.event_log import first
from schemas.topics import BY_NAME, TopicNames
from schemas.training import TrainingRequested, TrainingWithdrawn
from streams.fold.view import View
from streams.log.kafka.admin import wanted
from streams.log.kafka.log import KafkaLog
from streams.log.outgoing import to_outgoing
from tests.support.training import conversations, writable
from tests.support.worker import WorkerProcess, external

USED = ("company-data", "training-request", "adapter-ready")
QUICK = ("--set", "rank=2", "--set", "steps=4", "--set", "batch=2", "--set", "evaluation_rows=2")


@pytest.fixture
def environ(stack: Endpoints, names: TopicNames, tmp_path: Path, tiny_base: Path) -> dict[str, str]:
    more = {"BASE_MODEL": str(tiny_base), "TRAIN_THREADS": "1"}
    return external(stack.bootstrap_servers, names.prefix, tmp_path / "data", **more)


@pytest.fixture
async def kafka(stack: Endpoints, names: TopicNames) -> AsyncIterator[KafkaLog]:
    async with KafkaLog(stack.bootstrap_servers, session_timeout=6.0) as log:
        await log.create(
            wanted(names, [BY_NAME[name] for name in ("company-data", "training-request", "adapter-ready")])
        )
        await log.append([to_outgoing(event, names) for event in conversations(data.ACME, 12, requests=3)])
        yield log


def rillfold(environ: dict[str, str], *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "rillfold", *arguments]
    return subprocess.run(command, env=os.environ | environ, capture_output=True, text=True, timeout=240)


@contextmanager
def worker(environ: dict[str, str], logs: Path) -> Iterator[WorkerProcess]:
    started = WorkerProcess("train", ("worker", "train"), environ, logs).start()
    try:
        yield started.until_ready()
    finally:
        started.close()


async def test_a_killed_worker_and_its_successor_make_one_adapter_that_can_be_made_again(
    environ: dict[str, str], kafka: KafkaLog, names: TopicNames, tmp_path: Path
) -> None:
    run = rillfold(environ, "train", "--company", "acme", "--json", *QUICK)
    assert run.returncode == 0, run.stderr
    with worker(environ, tmp_path / "first") as first:
        await accepted(kafka, names)
        first.kill()
    with worker(environ, tmp_path / "second") as second:
        await asyncio.to_thread(_commands, environ)
        second.send(signal.SIGTERM)
        assert second.ended(30) == 0
    (adapter,) = (await View(kafka, names, LORA_ADAPTERS).catch_up()).values()
    assert (adapter.adapter, adapter.version, adapter.run) == ("acme/default", 1, json.loads(run.stdout)["run"])


def _commands(environ: dict[str, str]) -> None:
    """Served in order: when the second run has ended, so has the killed one."""
    waited = answer(rillfold(environ, "train", "--company", "acme", "--wait", "--json", *QUICK))
    assert (waited["adapter"], waited["adapter_version"]) == ("acme/default", 1)
    assert isinstance(waited["promoted"], bool) and waited["verdict"]
    again = answer(rillfold(environ, "retrain", "acme/default@1", "--json"))
    assert again["identical"] is True
    assert again["sha256"] == waited["sha256"]
    refused = rillfold(environ, "train", "--company", "acme", "--wait", "--set", "stepz=1")
    assert refused.returncode == 2
    assert "bad_settings" in refused.stderr
    assert "stepz" in refused.stderr
    for nothing in ("acme/nothing", "acme/default@9"):
        unknown = rillfold(environ, "retrain", nothing)
        assert unknown.returncode == 1
        assert "acme/default@1" in unknown.stderr


async def test_hostile_requests_leave_the_worker_and_the_data_folder_as_they_are(
    environ: dict[str, str], kafka: KafkaLog, names: TopicNames, tmp_path: Path
) -> None:
    """As they can be sent to Kafka: with ids and base models that were paths once."""
    for name in ("log", "secrets", "adapters"):
        (tmp_path / "data" / name).mkdir(parents=True)
        (tmp_path / "data" / name / "keep").write_text("everything")
    words = ("..", ".", "../../x", "~nouser/x", "/", "x" * 128)
    bases = ("tiny-qwen3", environ["RILLFOLD_BASE_MODEL"], "~nouser/x", "a\0b", "x" * 300)
    requests = writable(
        TrainingRequested(id=word, company=f"nobody-{n}", time=1, correlation="c", base_model=base)
        for word in words
        for n, base in enumerate(bases)
    )
    await kafka.append([to_outgoing(request, names) for request in requests])
    with worker(environ, tmp_path) as started:
        runs = await all_ended(kafka, names, len(requests))
        assert started.alive
    reasons = {row.reason for row in runs if row.company == "nobody-0"}
    assert reasons == {"no_data"}, "its base is on the list, by its name"
    assert {row.reason for row in runs if row.company != "nobody-0"} == {"unknown_base_model"}
    for name in ("log", "secrets", "adapters"):
        assert (tmp_path / "data" / name / "keep").read_text() == "everything"


async def test_a_worker_that_cannot_work_here_ends_with_70_and_says_what_to_mend(
    environ: dict[str, str], kafka: KafkaLog, names: TopicNames, tmp_path: Path
) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "training").write_text("a file in the way")
    assert rillfold(environ, "train", "--company", "acme", *QUICK).returncode == 0
    done = await asyncio.to_thread(rillfold, environ, "worker", "train")
    assert done.returncode == 70
    assert "data/training" in done.stderr
    assert "Traceback" not in done.stderr
    assert not await ended_runs(kafka, names), "the request waits"


async def test_a_wish_is_taken_back_and_who_waits_for_it_may_leave(
    environ: dict[str, str], kafka: KafkaLog, names: TopicNames, tmp_path: Path
) -> None:
    """No worker is there at first: so the run waits, and so does the command."""
    waiting = subprocess.Popen(  # noqa: ASYNC220
        [sys.executable, "-m", "rillfold", "train", "--company", "acme", "--wait", *QUICK],
        env=os.environ | environ, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    async with kafka.subscribe(names.wire("watch"), [names.wire("training-request")]) as group:
        while not await group.poll():
            pass
    waiting.send_signal(signal.SIGINT)
    _, said = await asyncio.to_thread(waiting.communicate, timeout=60)
    assert waiting.returncode == 130
    assert "Traceback" not in said
    told = said.splitlines()[-1]
    assert "goes on" in told
    command = told.partition("`rillfold ")[2].partition("`")[0].split()
    assert (command[:2], command[3:]) == (["runs", "cancel"], ["--company", "acme"])

    await kafka.append([to_outgoing(TrainingWithdrawn(**first("acme"), run=command[2], reason="a slip"), names)])
    with worker(environ, tmp_path):
        (ended,) = await all_ended(kafka, names, 1)
    assert (ended.run, ended.status, ended.reason) == (command[2], "refused", "withdrawn")


async def test_a_dataset_can_be_proved_and_one_flipped_byte_is_named(
    environ: dict[str, str], kafka: KafkaLog, tmp_path: Path
) -> None:
    folder = tmp_path / "set"
    built = answer(rillfold(environ, "dataset", "build", "--company", "acme", "--out", str(folder), "--json"))
    assert built["manifest"]["held_out"] == 3
    verified = answer(rillfold(environ, "dataset", "verify", str(folder), "--json"))
    assert verified == built

    rows = bytearray((folder / "rows.jsonl").read_bytes())
    rows[rows.index(b"\n") + 30] ^= 1
    (folder / "rows.jsonl").write_bytes(rows)
    caught = rillfold(environ, "dataset", "verify", str(folder), "--offline")
    assert caught.returncode == 1
    assert "rows.jsonl" in caught.stderr

    rillfold(environ, "dataset", "build", "--company", "acme", "--out", str(folder))
    manifest = json.loads((folder / "manifest.json").read_bytes())
    manifest["trained"] += 1
    (folder / "manifest.json").write_text(json.dumps(manifest))
    caught = rillfold(environ, "dataset", "verify", str(folder))
    assert caught.returncode == 1
    assert built["sha256"] in caught.stderr


def answer(done: subprocess.CompletedProcess[str]) -> Any:
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


async def accepted(kafka: KafkaLog, names: TopicNames) -> None:
    """Returns once a run is under way."""
    runs = View(kafka, names, TRAINING_RUNS)
    async with kafka.subscribe(names.wire("watch"), [names.wire("training-request")]) as group:
        while not any(row.status == "accepted" for row in (await runs.catch_up()).values()):
            await group.poll()


async def ended_runs(kafka: KafkaLog, names: TopicNames) -> list[Run]:
    return [row for row in (await View(kafka, names, TRAINING_RUNS).catch_up()).values() if row.status in ENDED]


async def all_ended(kafka: KafkaLog, names: TopicNames, count: int) -> list[Run]:
    async with kafka.subscribe(names.wire("watch"), [names.wire("training-request")]) as group:
        while len(ended := await ended_runs(kafka, names)) < count:
            await group.poll()
    return ended
