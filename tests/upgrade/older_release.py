"""Makes a small data folder with an older release, for `test_older_release.py` to open.

    .venv/bin/python -m tests.upgrade.older_release CHECKOUT NAME

CHECKOUT is a folder with that release and a `.venv` of its own (docs/testing.md).
Only what every release has is used of it: its commands, its HTTP API, its topics. Where a job needs a clever model,
this file plays it: the tiny base knows no tools. What is stored under `stored/NAME`:

- `told.json`: what that release said of its own data (keys, positions, digests, answers), for the test to compare with.
  All keys and tokens in it were made up for this; they open nothing.
- `folder.tar.xz`: `data` (the data folder after a clean stop), `tiny` (the base model), `dataset` (as it built one).

Postgres is stored as its folder, not as a dump: a person who upgrades has the folder, and a dump would be written by
today's server. It depends on the major version of the server, which `rillfold up` itself refuses where it is another.
"""

from __future__ import annotations

import asyncio
import shutil
import sys
import tarfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from uuid import uuid4

import msgspec
import psycopg
from confluent_kafka import Consumer, Producer, TopicPartition

from gpu_workers.bases import tiny
from gpu_workers.bases.chat import render
from rillfold.demo import data
from rillfold.embedded.state import Endpoints
from schemas.codec.codec import decode
from schemas.envelope import Origin
from schemas.rejected import Rejected
from streams.log.kafka.log import KafkaLog
from tests.upgrade.release import Release, until
from tests.upgrade.tools import TOKEN, URL, tool_server

STORED = Path(__file__).parent / "stored"
LEFT_OUT = {"logs", "run", "training", "stack.lock", "kafka/server.properties", "postgres/postmaster.opts"}
"""Of the data folder: what a stack writes anew at each start, with the folder's own place in it."""
QUICK = ("rank=2", "alpha=4", "steps=6", "batch=2", "evaluation_rows=2", "warmup=1", "learning_rate=0.05")
CHAT = {"model": "acme/default", "messages": [{"role": "user", "content": "Please look up customer C-1."}]}
CHAT |= {"max_tokens": 12, "temperature": 0}
CALL = '<tool_call>{{"name": "reserve", "arguments": {{"cake": "{}"}}}}</tool_call>'


@contextmanager
def at_work(checkout: Path, root: Path) -> Iterator[Release]:
    release = Release(checkout / ".venv" / "bin" / "python", checkout, root)
    try:
        release.start("up", "up", said="Ready")
        release.rillfold("topics", "create")
        yield release
    finally:
        release.stop_all()


def furnish(release: Release) -> dict[str, str]:
    """Two companies, a tool, their data, and a record that is no event."""
    keys = {}
    for company in ("acme", "globex"):
        given = {"company_id": company, "name": company.title()}
        keys[company] = release.ask("POST", "/companies", given)["api_key"]
    parameters = {"type": "object", "required": ["cake"], "properties": {"cake": {"type": "string"}}}
    tool = {"name": "reserve", "description": "Reserve a cake.", "endpoint": URL, "parameters": parameters}
    tool["auth"] = {"type": "bearer", "token": TOKEN}
    release.ask("POST", "/company-automation/register-tools", {"tools": [tool]}, keys["acme"])
    say(release, "company-data", *conversations(), *SAID)
    stranger = Producer({"bootstrap.servers": release.endpoints().bootstrap_servers})
    stranger.produce("company-data", b"this is no event", key=b"globex", partition=0)
    assert stranger.flush(30) == 0
    return keys


def say(release: Release, topic: str, *said: dict[str, Any]) -> None:
    release.rillfold("produce", topic, "--format", "jsonl", given=b"\n".join(map(msgspec.json.encode, said)))


def conversations() -> Iterator[dict[str, Any]]:
    talks = [*data.training(data.ACME, 12), *(data.conversation(data.ACME, r)[:2] for r in data.held_out(data.ACME, 3))]
    for n, talk in enumerate(talks):
        said = {"type": "conversation.ingested", "company": "acme", "id": f"talk-{n}", "agent": "desk"}
        yield said | {"messages": [msgspec.to_builtins(turn) for turn in talk]}


SAID: tuple[dict[str, Any], ...] = (
    {"type": "text.ingested", "company": "globex", "id": "g1", "text": "Globex makes pumps."},
    {"type": "record.ingested", "company": "globex", "id": "g2", "kind": "order", "data": '{"pumps": 3}'},
    {"type": "memory.noted", "company": "acme", "id": "m1", "memory": "greeting", "text": "Ms Grey likes tea."},
    {"type": "memory.noted", "company": "acme", "id": "m2", "memory": "greeting", "text": "Ms Grey likes coffee."},
    {"type": "memory.noted", "company": "globex", "id": "m3", "memory": "old", "text": "No longer so."},
    {"type": "memory.forgotten", "company": "globex", "id": "m4", "memory": "old", "reason": "It changed."},
    {
        "type": "agent_output.ingested",
        "company": "acme",
        "id": "o1",
        "agent": "desk",
        "prompt": "How are you?",
        "output": "Fine.",
        "success": True,
    },
)

REFUSED_SINCE: dict[str, Any] = {
    "type": "tool.registered",
    "company": "initech",
    "id": "t1",
    "name": "crm/look up",
    "description": "",
    "parameters": "{}",
    "endpoint": "https://crm.initech.example/look-up",
    "auth": {"kind": "none"},
}
"""A tool's name is a word of a kind since then, and this is none. It comes after what the training run read."""


def train(release: Release) -> None:
    release.start("train", "worker", "train")
    settings = [word for setting in QUICK for word in ("--set", setting)]
    release.rillfold("train", "--company", "acme", "--wait", *settings)
    release.rillfold("dataset", "build", "--company", "acme", "--out", "dataset")


def work(release: Release, keys: Mapping[str, str]) -> list[str]:
    """A job that ends with a tool's reply, one whose call is still under way, and an answer of the adapter."""
    with tool_server() as tools:
        release.start("bridge", "worker", "bridge")
        job(release, "job-done", keys["acme"])
        answer(release, "job-done", 0, CALL.format("plum"))
        answer(release, "job-done", 1, "The plum cake is kept.")
        until("the job", lambda: status(release, "job-done") == "completed")
        release.stop("bridge")
        job(release, "job-open", keys["acme"])
        answer(release, "job-open", 0, CALL.format("walnut"))
        until("the call", lambda: any(call.job == "job-open" for call in events(release.endpoints(), "tool-call")))
    return [key for key, _ in tools.calls]


def job(release: Release, name: str, key: str) -> None:
    given = {"data": {"task": "Keep a cake."}, "job": name, "session": "monday"}
    release.ask("POST", "/company-automation/process", given, key)


def status(release: Release, name: str) -> str:
    rows = release.says("query", "company_automation_jobs", "--company", "acme")["rows"]
    return next((row["row"]["status"] for row in rows if row["row"]["job"] == name), "")


def answer(release: Release, name: str, number: int, text: str) -> None:
    """As a serving worker would, with the tiny base made clever."""

    def asked() -> list[Any]:
        return [event for event in events(release.endpoints(), "inference-request") if event.job == name][number:]

    request = until(f"question {number} of {name}", asked)[0]
    said = {"type": "inference.completed", "company": "acme", "id": str(uuid4()), "request": request.id, "job": name}
    said |= {"text": text, "finish_reason": "stop", "model": "tiny", "prompt_tokens": 9, "completion_tokens": 9}
    said |= {"causation": request.id, "correlation": request.correlation}
    say(release, "inference-result", said)


def events(endpoints: Endpoints, topic: str) -> list[Any]:
    return asyncio.run(_events(endpoints.bootstrap_servers, topic))


async def _events(servers: str, topic: str) -> list[Any]:
    found = []
    async with KafkaLog(servers) as log:
        for partition, start in (await log.starts(topic)).items():
            async for batch in log.read(topic, partition, start):
                for record in batch:
                    event = decode(record.value, Origin(topic, partition, record.offset), record.timestamp)
                    assert not isinstance(event, Rejected), event
                    found.append(event)
    return found


def served(release: Release, key: str) -> str:
    release.start("serve", "worker", "serve")
    answered = until("the adapter", lambda: _chat(release, key))
    return str(answered["choices"][0]["message"]["content"])


def _chat(release: Release, key: str) -> Any:
    try:
        return release.ask("POST", "/v1/chat/completions", CHAT, key)
    except AssertionError:  # it follows the log, and has not come to the adapter yet
        return None


def at_rest(release: Release) -> dict[str, Any]:
    """What the release says when nothing is left to do."""
    positions = {each["projection"]: each["positions"] for each in until("the sink", lambda: caught_up(release))}
    return {
        "positions": positions,
        "digests": {each["projection"]: each for each in release.says("projection", "digest")},
        "letters": release.says("dlq", "list"),
        "lineage": release.says("lineage", "acme/default"),
        "rows": {name: release.says("query", name)["rows"] for name in positions},
    }


def caught_up(release: Release) -> Any:
    """How far each projection in Postgres knows the log; nothing while that is not its end."""
    found = release.ask("GET", "/projections")
    return found if not any(lag for each in found for of in each["lag"].values() for lag in of.values()) else None


def ends(endpoints: Endpoints) -> dict[str, dict[int, int]]:
    """Of every topic: the offset that the next record gets."""
    reader = Consumer({"bootstrap.servers": endpoints.bootstrap_servers, "group.id": "nobody"})
    try:
        topics = reader.list_topics(timeout=30).topics
        return {
            name: {n: reader.get_watermark_offsets(TopicPartition(name, n), timeout=30)[1] for n in topic.partitions}
            for name, topic in topics.items()
            if not name.startswith("__")
        }
    finally:
        reader.close()


def sunk(endpoints: Endpoints) -> dict[str, list[Any]]:
    """Where the sink stands, and which transaction wrote each row."""
    with psycopg.connect(str(endpoints.postgres_dsn)) as database:
        at = "select changelog, partition, next, epoch from rillfold.sink_positions order by 1, 2"
        rows = "select key, partition, xmin::text from rillfold.memories_v1 order by 1, 2"
        return {"positions": [*map(list, database.execute(at))], "memories": [*map(list, database.execute(rows))]}


def record(checkout: Path, root: Path) -> dict[str, Any]:
    with at_work(checkout, root) as release:
        for name in ("fold", "sink"):
            release.start(name, "worker", name)
        release.start("api", "api")
        keys = furnish(release)
        train(release)
        say(release, "company-data", REFUSED_SINCE)
        said = served(release, keys["acme"])
        release.stop("serve")
        calls = work(release, keys)
        told = {"keys": keys, "said": said, "calls": calls, **at_rest(release)}
        release.stop("fold", "sink", "train", "api")
        told |= {"ends": ends(release.endpoints()), "sunk": sunk(release.endpoints())}
    return told


def pack(root: Path, archive: Path) -> None:
    def kept(member: tarfile.TarInfo) -> tarfile.TarInfo | None:
        member.uid = member.gid = 0
        member.uname = member.gname = ""
        return None if member.name.removeprefix("data/") in LEFT_OUT else member

    with tarfile.open(archive, "w:xz", preset=9) as out:
        for name in ("data", "tiny", "dataset"):
            out.add(root / name, name, filter=kept)


def main(checkout: str, name: str) -> None:
    with TemporaryDirectory(prefix="rillfold-stored-") as folder:
        root, place = Path(folder), STORED / name
        root.chmod(0o755)
        texts = [render(talk) for company in data.COMPANIES for talk in data.training(company, 60)]
        tiny.make(root / "tiny", texts, hidden=32, layers=1)
        try:
            told = record(Path(checkout).resolve(), root)
        except BaseException:
            shutil.copytree(root, f"{folder}-failed", ignore=shutil.ignore_patterns("postgres", "kafka"))
            raise
        place.mkdir(parents=True, exist_ok=True)
        (place / "told.json").write_bytes(msgspec.json.format(msgspec.json.encode(told), indent=1) + b"\n")
        pack(root, place / "folder.tar.xz")


if __name__ == "__main__":
    main(*sys.argv[1:])
