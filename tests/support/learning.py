"""Logs of company data to learn from, and the datasets that come of them."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from processors.dataset.lessons import Lesson
from processors.dataset.turns import Manifest
from schemas.topics import BY_NAME, TopicNames
from schemas.training import OffsetRange
from streams.history import replay
from streams.log.memory import MemoryLog
from streams.log.port import Outgoing, TopicSpec

STORED = Path(__file__).parents[1] / "train" / "stored"
NAMES = TopicNames()


class Built(NamedTuple):
    """A dataset in memory."""

    manifest: Manifest
    rows: bytes

    @property
    def lessons(self) -> list[Lesson]:
        return [msgspec.json.decode(line, type=Lesson) for line in self.rows.splitlines()]


async def log_of(records: Iterable[Outgoing]) -> MemoryLog:
    log = MemoryLog(lambda: 0)
    await log.create([TopicSpec(name, 4) for name in ("company-data", "tool-result")])
    await log.append(list(records))
    return log


async def built(log: MemoryLog, folder: Path, company: str = "acme", **how: Any) -> Built:
    rows = folder / "rows.jsonl"
    ranges = how.pop("ranges", None) or await replay.everything_up_to_now(log, NAMES, how.get("rule", 3))
    return Built(await replay.build(log, NAMES, company, ranges, rows, **how), rows.read_bytes())


def stored() -> list[Outgoing]:
    lines = map(json.loads, (STORED / "company_data.jsonl").read_text().splitlines())
    return [
        Outgoing(
            line["topic"],
            line["key"].encode() if line["key"] else None,
            line["value"].encode(),
            partition=line["partition"],
            timestamp=line["timestamp"],
        )
        for line in lines
    ]


def said(
    type_: str, fields: Mapping[str, Any] | None = None, *, company: str = "acme", at: int = 0, **more: Any
) -> Outgoing:
    """An event as a client writes it: JSON, under the key of its topic."""
    event = {"type": type_, "company": company, **(fields or {}), **more}
    topic = "tool-result" if type_ == "tool.returned" else "company-data"
    sub = event.get("job") if topic == "tool-result" else event.get("entity")
    key = f"{company}/{sub}" if sub else company
    assert topic in BY_NAME
    return Outgoing(topic, key.encode(), json.dumps(event).encode(), timestamp=at)


def talk(question: str, *answers: str | tuple[str, str], company: str = "acme", **more: Any) -> Outgoing:
    """A conversation of one question and its answers; a pair is a call."""
    turns: list[dict[str, Any]] = [{"role": "user", "content": question}]
    for answer in answers:
        if isinstance(answer, str):
            turns.append({"role": "assistant", "content": answer})
        else:
            turns.append({"role": "assistant", "tool_calls": [{"name": answer[0], "arguments": answer[1]}]})
    return said("conversation.ingested", {"agent": "desk", "messages": turns, **more}, company=company)


def everything(topic: str, partition: int, stop: int, start: int = 0) -> OffsetRange:
    return OffsetRange(topic=topic, partition=partition, start=start, stop=stop)
