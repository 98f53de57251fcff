"""Writes the histories that are absent, and the digests of projections that have none for their version yet.

python tests/upgrade/record.py

Golden bytes of new events and versions (write.py) go into a history of their own. A history is never written again: it
stands for logs that are out there. A digest neither: when a fold gives other answers, its projection needs a new
version, and that one gets a digest of its own.
"""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT))

import msgspec  # noqa: E402

from processors.saga import ACTING_JOBS  # noqa: E402
from projections.catalog import PROJECTIONS  # noqa: E402
from projections.digest import digest  # noqa: E402
from projections.projection import Projection  # noqa: E402
from rillfold.testing.driver import Consumer, Driver  # noqa: E402
from schemas.adapters import RolloutDecided  # noqa: E402
from schemas.codec.codec import decode, encode  # noqa: E402
from schemas.envelope import Event, Origin  # noqa: E402
from schemas.inference import InferenceRequested  # noqa: E402
from schemas.jobs import JobRequested  # noqa: E402
from schemas.memory import MemoryForgotten, MemoryNoted  # noqa: E402
from schemas.tools import ToolCallProposed  # noqa: E402
from schemas.topics import TOPIC_OF, TopicNames  # noqa: E402
from streams.history.refold import Held, refold  # noqa: E402
from streams.log.kafka import admin  # noqa: E402
from streams.log.memory import MemoryLog  # noqa: E402
from streams.log.port import Outgoing  # noqa: E402
from tests.kill import senders  # noqa: E402
from tests.kill.traffic import FOLDED, TOOLS, Traffic  # noqa: E402

HISTORIES = Path(__file__).parent / "histories"
DIGESTS = HISTORIES / "digests.json"
WIRE = Path(__file__).parent / "wire"
NAMES = TopicNames()


class Line(msgspec.Struct, omit_defaults=True):
    """One record of a history. Bytes are base64."""

    topic: str
    partition: int
    timestamp: int
    key: bytes | None = None
    value: bytes | None = None
    headers: tuple[tuple[str, bytes], ...] = ()


def lines(path: Path) -> list[Line]:
    return [msgspec.json.decode(line, type=Line) for line in path.read_bytes().splitlines()]


Rows = dict[str, dict[int, dict[str, Any]]]
"""`name v1` -> partition -> key -> row, of every projection that has rows at all."""


async def folded(history: Iterable[Line]) -> Rows:
    """What the engine folds from it, in memory."""
    log = MemoryLog()
    await admin.create(log, NAMES)
    await log.append([Outgoing(r.topic, r.key, r.value, r.headers, r.partition, r.timestamp) for r in history])
    found: Rows = {}
    for projection in PROJECTIONS.values():
        ends = {topic: await log.ends(topic) for topic in projection.topics}
        rows = {}
        for partition in range(4):
            stops = {topic: ends[topic][partition] for topic in ends}
            rows[partition] = dict((await refold(log, projection, NAMES, partition, Held({}, stops))).rows)
        found[label(projection)] = rows
    return _without_none(found)


def label(projection: Projection[Any]) -> str:
    return f"{projection.name} v{projection.version}"


def digests(rows: Rows) -> dict[str, str]:
    return {name: digest(parts) for name, parts in rows.items()}


def one_by_one(history: Iterable[Line]) -> Rows:
    """The same without an engine: each event by itself, in the order of the history."""
    rows: Rows = {label(p): {n: {} for n in range(4)} for p in PROJECTIONS.values()}
    for offset, record in enumerate(history):
        event = decode(record.value, Origin(record.topic, record.partition, offset), record.timestamp, record.headers)
        for projection in PROJECTIONS.values():
            if isinstance(event, Event) and record.topic in projection.topics:
                key = projection.key(event)
                if key is not None:
                    part = rows[label(projection)][record.partition]
                    before = part.get(key) or projection.initial(key)
                    if (after := projection.fold(before, event)) is not before:
                        part[key] = after
    return _without_none(rows)


def _without_none(rows: Rows) -> Rows:
    return {name: parts for name, parts in rows.items() if any(parts.values())}


def absent() -> list[Outgoing]:
    """The golden bytes of every schema that ever was and is folded, less those that stand in a history."""
    there = {line.value for path in HISTORIES.glob("*.jsonl") for line in lines(path)}
    records = []
    for path in sorted(WIRE.glob("*.json")):
        for golden in json.loads(path.read_text()):
            value = bytes.fromhex(golden["value"])
            event = decode(value, Origin("golden", 0, 0), 0)
            assert isinstance(event, Event), path
            topic = TOPIC_OF[type(event)]
            if topic.name in FOLDED and value not in there:
                records.append(Outgoing(topic.name, topic.key(event).encode(), value))
    return records


# What the histories are made from, each once.


def _placed(records: Iterable[Outgoing], start: int = 1_700_000_000_000) -> list[Line]:
    from streams.log.kafka.appends import place

    records = list(records)
    partitions = {n: tp[1] for tp, indexes in place(records, dict.fromkeys(FOLDED, 4)).items() for n in indexes}
    return [Line(r.topic, partitions[n], start + n, r.key, r.value, r.headers) for n, r in enumerate(records)]


async def kill_traffic() -> list[Line]:
    """What the kill loop sends: many companies, repeats, poison."""
    bursts = Traffic(4711, 500, NAMES).bursts()
    records = [record for burst in bursts if burst.how != "aborted" for record in burst.records]
    return _placed(record if record.key else record._replace(partition=0) for record in records)


async def jobs() -> list[Line]:
    """Jobs with answers, tools and failures; every fourth record of each topic comes twice."""
    log = MemoryLog()

    def model(event: Event, now: int) -> tuple[Event, ...]:
        assert isinstance(event, InferenceRequested)
        return (senders._model(event),)

    def tool(event: Event, now: int) -> tuple[Event, ...]:
        assert isinstance(event, ToolCallProposed)
        return (senders._tool(event),)

    world = [Consumer("model", ("inference-request",), model), Consumer("tools", ("tool-call",), tool)]
    async with Driver(log, [ACTING_JOBS], consumers=world) as driver:
        for n in range(40):
            envelope = {"id": f"r{n}", "company": f"company-{n % 3}", "time": 1_700_000_000_000_000 + n}
            task = f"Refund order A{n}"
            await driver.send(JobRequested(**envelope, correlation=f"r{n}", job=f"job-{n}", task=task, tools=TOOLS))
            if n % 7 == 0:
                await driver.settle()
        await driver.settle()
    found = [record for topic in FOLDED for p in range(4) async for batch in log.read(topic, p, 0) for record in batch]
    found.sort(key=lambda record: record.timestamp)
    twice = [again for n, record in enumerate(found) for again in [record] * (2 if n % 4 == 0 else 1)]
    return [Line(r.topic, r.partition, r.timestamp, r.key, r.value, r.headers) for r in twice]


async def sessions_memories_rollouts() -> list[Line]:
    """Sessions over several partitions, memories that are replaced and forgotten, versions on their way; repeats."""
    events: list[Event] = []
    for n in (n - n % 5 // 4 for n in range(80)):
        e = {"id": f"s{n}", "company": f"company-{n % 3}", "time": 1_700_000_000_000_000 + n, "correlation": f"s{n}"}
        adapter, memory = f"company-{n % 3}/default", f"m{n % 4}"
        session = f"day-{n // 50}" if n % 7 else None
        events += [
            JobRequested(**e, job=f"job-{n}", task=f"Task {n}", session=session),
            MemoryNoted(**e, memory=memory, text=f"Text {n}") if n % 6 else MemoryForgotten(**e, memory=memory),
            RolloutDecided(**e, adapter=adapter, adapter_version=1 + n // 20, percent=(1, 10, 50, 100, 0)[n // 3 % 5]),
        ]
    topics = [TOPIC_OF[type(event)] for event in events]
    return _placed(Outgoing(t.name, t.key(e).encode(), encode(e)) for t, e in zip(topics, events, strict=True))


MAKERS: Mapping[str, Callable[[], Any]] = {
    "kill_traffic": kill_traffic,
    "jobs": jobs,
    "sessions_memories_rollouts": sessions_memories_rollouts,
}


async def main() -> None:
    for name, make in MAKERS.items():
        if not (HISTORIES / f"{name}.jsonl").exists():
            _write(name, await make())
    if newer := absent():
        count = len([*HISTORIES.glob("every_event_and_version*.jsonl")])
        _write(f"every_event_and_version_{count + 1}", _placed(record for record in newer for _ in range(2)))
    known = json.loads(DIGESTS.read_text())
    for path in sorted(HISTORIES.glob("*.jsonl")):
        mine = known.setdefault(path.stem, {})
        for projection, value in digests(await folded(lines(path))).items():
            if projection not in mine:
                mine[projection] = value
                print(f"recorded {projection} of {path.stem}")  # noqa: T201
    DIGESTS.write_text(json.dumps(known, indent=2, sort_keys=True) + "\n")


def _write(name: str, history: Iterable[Line]) -> None:
    path = HISTORIES / f"{name}.jsonl"
    path.write_bytes(b"".join(msgspec.json.encode(line) + b"\n" for line in history))
    print(f"wrote {path.relative_to(ROOT)}")  # noqa: T201


if __name__ == "__main__":
    asyncio.run(main())
