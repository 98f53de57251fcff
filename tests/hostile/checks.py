"""What must hold after every group: another company's work goes on, nothing was read, lost or ended."""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar
from uuid import uuid4

import httpx

from schemas.adapters import AdapterReady
from schemas.codec.codec import decode
from schemas.company import Message
from schemas.envelope import Event, Origin
from schemas.inference import InferenceCompleted, InferenceRequested
from schemas.tools import ToolCallProposed, ToolReturned
from schemas.training import TrainingRefused, TrainingRequested
from streams.log.kafka import admin
from streams.log.kafka.log import KafkaLog
from streams.log.outgoing import to_outgoing
from streams.log.partitioner import partition_of
from tests.hostile.mallory.adapters import ready
from tests.hostile.mallory.doors import Answer
from tests.hostile.stage import ACME, MALLORY, PARTITIONS, Stage

WITHIN = 20.0
"""Seconds in which every worker must have moved for acme: 10 on an idle machine."""
RUNS_WITHIN = 90.0
"""Seconds for all training runs of a group: each has one step, or is refused."""
QUESTION = "Look up customer C-4711, please."
CONVERSATIONS = 8
KEPT = ("keepsakes", "adapters", "secrets", "api")
OURS = ("inference-result", "tool-result", "automation-job", "training-request")
Found = TypeVar("Found")


@dataclass
class Watch:
    """What was true before the first hostile byte, and every answer that mallory got since."""

    files: dict[str, str] = field(default_factory=dict)
    texts: dict[str, str] = field(default_factory=dict)
    """Greedy answers of acme's adapter and of the base: they never change."""
    looked: dict[str, Mapping[int, int]] = field(default_factory=dict)
    """Up to where the workers' topics have been looked through."""
    heard: list[tuple[str, Answer]] = field(default_factory=list)

    def hear(self, what: str, answer: Answer) -> Answer:
        self.heard.append((what, answer))
        return answer


async def furnished(stage: Stage, log: KafkaLog) -> Watch:
    """Acme's house: data, a memory, a tool with its token, an adapter. Mallory has a key, a tool and an adapter."""
    stage.keys["admin"] = (stage.data / "api" / "admin.key").read_text()
    async with stage.http("admin") as http:
        for who, company in (("acme", ACME), ("mallory", MALLORY)):
            joined = await http.post("/companies", json={"company_id": company})
            stage.keys[who] = _ok(joined)["api_key"]
    await log.append([to_outgoing(adapter, stage.names) for adapter in _adapters(stage)])
    for who in ("acme", "mallory"):
        async with stage.http(who) as http:
            _ok(await http.post("/company-automation/register-tools", json={"tools": [_tool(stage, who)]}))
            _ok(await http.post("/topics/company-data", json=_data(stage, who)))
    watch = Watch(files=files_of(stage), texts={})
    await asyncio.gather(*(_learn(stage, watch, model) for model in models(stage)))
    return watch


def _adapters(stage: Stage) -> list[AdapterReady]:
    named = {f"{ACME}/{stage.role}": 2, f"{MALLORY}/ops": 4}
    return [ready(stage, name, str(stage.bench.adapter(name, seed=seed).sha256)) for name, seed in named.items()]


def _tool(stage: Stage, who: str) -> dict[str, Any]:
    properties = {"order": {"type": "string"}}
    tool = {"name": "lookup", "endpoint": f"{stage.tools.url}/{who}", "parameters": {"properties": properties}}
    secret = {"type": "bearer", "token": stage.canaries["token"]}
    return {**tool, "description": stage.canaries["tool"], "auth": secret} if who == "acme" else tool


def _data(stage: Stage, who: str) -> list[dict[str, Any]]:
    text = stage.canaries["text"] if who == "acme" else stage.hidden
    memory = stage.canaries["memory"] if who == "acme" else "note"
    asked = [f"{text} {n}" for n in range(CONVERSATIONS)]  # one question of one text would be held out 1 time in 5
    talks = [[{"role": "user", "content": each}, {"role": "assistant", "content": text}] for each in asked]
    return [
        {"type": "text.ingested", "text": text},
        *({"type": "conversation.ingested", "agent": "default", "messages": turns} for turns in talks),
        {"type": "memory.noted", "memory": memory, "text": text},
    ]


async def _learn(stage: Stage, watch: Watch, model: str) -> None:
    """The first answer may have to wait until the serving worker has heard of the adapter."""

    async def told() -> str | None:
        answer = await _chat(stage, model)
        return _content(answer) if answer.status_code == 200 else None

    watch.texts[model] = await until(f"the first answer of {model}", told, 60)


def models(stage: Stage) -> tuple[str, str]:
    return f"{ACME}/{stage.role}", stage.model


async def until(what: str, look: Callable[[], Awaitable[Found | None]], seconds: float = WITHIN) -> Found:
    stop = time.monotonic() + seconds
    while (found := await look()) is None:
        assert time.monotonic() < stop, f"{what}: not within {seconds:.0f} s"
        await asyncio.sleep(0.1)
    return found


async def advances(stage: Stage, watch: Watch, log: KafkaLog) -> list[str]:
    """What does not go on for acme. Each is asked at once: they hold each other up in no way."""
    probes = {"fold and sink": _folds(stage), "topic of questions": _answers(stage, watch, log)}
    probes |= {"/v1": _chats(stage, watch), "training": _refuses(stage, log), "bridge": _calls(stage, log)}
    probes |= {"jobs": _works(stage)}
    found = await asyncio.gather(*probes.values(), return_exceptions=True)
    return [f"{name}: {type(e).__name__} {e}"[:400] for name, e in zip(probes, found, strict=True) if e is not None]


async def _folds(stage: Stage) -> None:
    """A new record in each partition of the data, a new memory; then every projection is at the end of its topics."""
    name, spread = f"m{uuid4().hex}", [f"e{i}" for i in range(40)]
    entities = {partition_of(f"{ACME}/{entity}".encode(), PARTITIONS): entity for entity in spread}
    texts = [{"type": "text.ingested", "entity": entity, "text": "news"} for entity in entities.values()]
    async with stage.http("acme") as http:
        noted = {"type": "memory.noted", "memory": name, "text": "news"}
        placed = _ok(await http.post("/topics/company-data", json=[*texts, noted]))
        places = [f"{each['topic']}/{each['partition']}/{each['offset']}" for each in placed]
        wanted: dict[str, Any] = {"min_offset": places, "wait": WITHIN}
        for path in (f"memories/{ACME}/{name}", "datasets"):
            _ok(await http.get(f"/projections/{path}", params=wanted, timeout=WITHIN + 10))
    async with stage.http("admin") as http:

        async def caught_up() -> bool | None:
            proofs = _ok(await http.get("/projections"))
            return None if any(n > 0 for proof in proofs for of in proof["lag"].values() for n in of.values()) else True

        await until("every projection at the end of its topics", caught_up)


def _spread() -> dict[int, str]:
    """A job for each partition."""
    jobs = (f"p{uuid4().hex[:12]}" for _ in range(64))
    return {partition_of(f"{ACME}/{job}".encode(), PARTITIONS): job for job in jobs}


def envelope() -> dict[str, Any]:
    id_ = uuid4().hex
    return {"id": id_, "company": ACME, "time": time.time_ns() // 1000, "correlation": id_}


async def said(stage: Stage, log: KafkaLog, topic: str, events: Sequence[Event]) -> Callable[[], Awaitable[Any]]:
    """Appends, and returns a look at what came on `topic` since."""
    wire = stage.names.wire(topic)
    starts = await log.ends(wire)
    await log.append([to_outgoing(event, stage.names) for event in events])

    async def look() -> list[Event]:
        return [event for event in await heard_on(stage, log, topic, starts) if event.company == ACME]

    return look


async def heard_on(stage: Stage, log: KafkaLog, topic: str, starts: Any) -> list[Event]:
    wire, found = stage.names.wire(topic), list[Event]()
    for partition, start in starts.items():
        async for records in log.read(wire, partition, start):
            made = [decode(r.value, Origin(topic, partition, r.offset), r.timestamp, ()) for r in records]
            found += [event for event in made if isinstance(event, Event)]
    return found


async def _answers(stage: Stage, watch: Watch, log: KafkaLog) -> None:
    model = models(stage)[0]
    turn = (Message(role="user", content=QUESTION),)
    asked = [
        InferenceRequested(**envelope(), job=job, adapter=model, messages=turn, max_tokens=8)
        for job in _spread().values()
    ]
    look = await said(stage, log, "inference-result", asked)

    async def all_of_them() -> list[Any] | None:
        got = {getattr(event, "request", ""): event for event in await look()}
        return [got[each.id] for each in asked] if all(each.id in got for each in asked) else None

    for result in await until("answers by topic", all_of_them):
        assert isinstance(result, InferenceCompleted), result
        assert result.text == watch.texts[model], f"another answer than before: {result.text!r}"


async def _chat(stage: Stage, model: str) -> httpx.Response:
    async with stage.http("acme") as http:
        turn = {"role": "user", "content": QUESTION}
        return await http.post("/v1/chat/completions", json={"model": model, "messages": [turn], "max_tokens": 8})


def _content(answer: httpx.Response) -> str:
    return str(answer.json()["choices"][0]["message"]["content"])


async def _chats(stage: Stage, watch: Watch) -> None:
    for model in models(stage):
        answer = await asyncio.wait_for(_chat(stage, model), WITHIN)
        _ok(answer)
        assert _content(answer) == watch.texts[model], f"another answer than before: {_content(answer)!r}"


async def _refuses(stage: Stage, log: KafkaLog) -> None:
    """A wish that no worker can fulfil is refused at once: the quickest proof that the worker is at work."""
    wish = TrainingRequested(**envelope(), role="default", base_model="no-such-base")
    look = await said(stage, log, "training-request", [wish])

    async def refused() -> bool | None:
        ends = [event for event in await look() if isinstance(event, TrainingRefused) and event.run == wish.id]
        return True if ends else None

    await until("a training request refused", refused)


async def _calls(stage: Stage, log: KafkaLog) -> None:
    jobs = _spread().values()
    asked = [
        ToolCallProposed(**(given := envelope()), call=given["id"], job=job, tool="lookup", arguments='{"order":"A"}')
        for job in jobs
    ]
    look = await said(stage, log, "tool-result", asked)

    async def all_of_them() -> list[ToolReturned] | None:
        got = {event.call: event for event in await look() if isinstance(event, ToolReturned)}
        return [got[each.call] for each in asked] if all(each.call in got for each in asked) else None

    for result in await until("tool calls answered", all_of_them):
        assert result.ok and "/acme" in result.body, result


async def _works(stage: Stage) -> None:
    async with stage.http("acme") as http:
        body = {"data": {"task": "Say ho."}, "use_adapter": False}
        answer = await http.post("/company-automation/process", json=body, params={"wait": WITHIN}, timeout=WITHIN + 10)
        assert _ok(answer)["status"] == "completed", answer.text


def _ok(answer: httpx.Response) -> Any:
    assert answer.status_code < 300, f"{answer.request.url}: {answer.status_code} {answer.text[:300]}"
    return answer.json()


def files_of(stage: Stage) -> dict[str, str]:
    """Every file that must stay: its path and its bytes. The keys' file may grow."""
    places = [stage.data / name for name in KEPT] + [stage.root / "outside", *stage.root.glob("*.txt")]
    places += [*stage.data.glob("*.txt"), stage.data / "training" / "keepsake.txt"]
    files = [path for place in places for path in ([place] if place.is_file() else place.rglob("*")) if path.is_file()]
    return {str(path.relative_to(stage.root)): _hash(path) for path in files}


def _hash(path: Path) -> str:
    return "" if path.parent.name == "api" else hashlib.sha256(path.read_bytes()).hexdigest()


def lost(stage: Stage, watch: Watch) -> list[str]:
    now = files_of(stage)
    return [f"file {path} is gone or changed" for path, hash_ in watch.files.items() if now.get(path) != hash_]


def read(stage: Stage, watch: Watch) -> list[str]:
    """Foreign bytes in what mallory was told."""
    canaries = {name: text.encode() for name, text in stage.canaries.items()}
    told = [
        f"{what} was told acme's {name}"
        for what, answer in watch.heard
        for name, canary in canaries.items()
        if canary in answer.head or canary in answer.body
    ]
    watch.heard.clear()
    return told


async def told_by_topic(stage: Stage, watch: Watch, log: KafkaLog) -> list[str]:
    """Foreign bytes in what workers said to mallory since the last look."""
    found = []
    for topic in OURS:
        wire = stage.names.wire(topic)
        events = await heard_on(stage, log, topic, watch.looked.get(topic) or await log.starts(wire))
        watch.looked[topic] = await log.ends(wire)
        mine = [event for event in events if event.company != ACME]
        found += [
            f"{topic} holds acme's {name} in {event.type} of {event.company}"
            for event in mine
            for name, canary in stage.canaries.items()
            if canary in repr(event)
        ]
    return found


def unfit(what: str, answer: Answer) -> list[str]:
    """No 500; 503 only with the word when to come again. That a method or HTTP/9.9 is not spoken is an answer."""
    if answer.status == 503 and answer.header("retry-after") is None:
        return [f"{what}: 503 without Retry-After: {answer.body[:200]!r}"]
    if answer.status >= 500 and answer.status not in (501, 503, 505):
        return [f"{what}: {answer.status} {answer.body[:200]!r}"]
    return []


async def rested(stage: Stage, log: KafkaLog) -> list[str]:
    """One run is trained at a time, whoever wished for it: acme's turn is measured when mallory's are over."""
    group, topic = stage.names.wire("rillfold-train"), stage.names.wire("training-request")

    async def over() -> bool | None:
        if "train" in stage.cast.ended():
            return True
        ends, done = await log.ends(topic), await log.committed(group, topic)
        return True if all(done.get(partition, 0) >= end for partition, end in ends.items()) else None

    try:
        await until("the end of mallory's training runs", over, RUNS_WITHIN)
    except AssertionError as error:
        return [str(error)]
    return []


async def wrong(stage: Stage, watch: Watch, log: KafkaLog) -> list[str]:
    """Everything that does not hold now; empty: all of it does."""
    ended = [f"{name} ended: {words}" for name, words in stage.cast.ended().items()]
    # Whoever ended is the news; what stands still behind it needs no waiting for.
    stuck = [] if ended else await advances(stage, watch, log)
    ended = ended or [f"{name} ended: {words}" for name, words in stage.cast.ended().items()]
    try:
        told = await told_by_topic(stage, watch, log)
    except Exception as error:
        told = [f"the log can no longer be read: {error!r}"]
    return [*ended, *stuck, *lost(stage, watch), *read(stage, watch), *told]


async def prepared(log: KafkaLog, stage: Stage) -> None:
    await admin.create(log, stage.names)
