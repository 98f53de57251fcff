"""A group of the corpus, played: each line by every door that it can come through."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from schemas.codec.catalog import classes
from schemas.topics import TOPIC_OF, WISHES
from tests.hostile.checks import Watch, unfit
from tests.hostile.mallory.doors import (
    ANSWER_WITHIN,
    UNFINISHED_SECONDS,
    Answer,
    RawKafka,
    RawRecord,
    by_rest,
    header_pairs,
    plain,
    raw_http,
)
from tests.hostile.mallory.words import Line, avro_of, event, json_of, made
from tests.hostile.stage import ACME, MALLORY, Stage

AVRO = b"avro/binary"


def world_of(stage: Stage) -> dict[str, str]:
    """What lines may name. Nothing of it is acme's secret."""
    bench = stage.bench.base
    places = {"base": bench.name, "model": stage.model, "base folder": str(bench)}
    places |= {"tools": f"{stage.tools.url}/mallory", "data": str(stage.data)}
    return {"acme": ACME, "mallory": MALLORY, **places}


class Scene:
    def __init__(self, stage: Stage, watch: Watch, kafka: RawKafka) -> None:
        self._stage, self._watch, self._kafka = stage, watch, kafka
        self._world = world_of(stage)
        self.sent = 0
        self.untaken: list[str] = []
        """What the broker or Avro itself would not carry."""

    async def play(self, line: Line) -> list[str]:
        """What was answered wrongly. What happens behind the doors is looked at later."""
        if "line" in line.says:
            return await self._request(line)
        return await (self._event(line) if "type" in line.says else self._record(line))

    async def _event(self, line: Line) -> list[str]:
        """JSON and Avro, by REST and straight to Kafka. What acme says itself, Kafka cannot tell from acme."""
        type_ = line.says["type"]
        fields = event(type_, line.says.get("with", {}), self._world)
        topic, says = TOPIC_OF[classes()[type_]].name, dict(line.says)
        says["refused"] = says.get("refused") or classes()[type_] not in WISHES or fields["company"] == ACME
        wrong, key = [], made(says.get("key", fields["company"]), self._world)
        for kind, value in ((b"application/json", json_of(fields)), (AVRO, avro_of(fields))):
            if value is None:
                continue
            answer = await by_rest(self._stage, topic, value, kind)
            wrong += self._judged(f"{line.name} by REST", answer, says)
            if fields["company"] != ACME:
                await self._append(line, RawRecord(topic, value, _bytes(key) if isinstance(key, str | bytes) else None))
        return wrong

    async def _record(self, line: Line) -> list[str]:
        """Raw bytes: the same to Kafka and as a body of both content types."""
        says = made(dict(line.says), self._world)
        value, topic = _bytes(says["value"]), says.get("topic", "company-data")
        headers = tuple((_bytes(name) or b"", _bytes(content)) for name, content in says.get("headers", ()))
        record = RawRecord(topic, value, _bytes(says.get("key", MALLORY)), headers, says.get("timestamp"))
        await self._append(line, record)
        wrong: list[Any] = []
        if not value or headers:
            return wrong
        for kind in (b"application/json", AVRO):
            wrong += self._judged(f"{line.name} by REST", await by_rest(self._stage, topic, value, kind), line.says)
        return wrong

    async def _append(self, line: Line, record: RawRecord) -> None:
        self.sent += 1
        if why := await self._kafka.send(record):
            self.untaken.append(f"{line.name}: {why}")

    async def _request(self, line: Line) -> list[str]:
        says = made(dict(line.says), self._world)
        body = says.get("body", b"")
        if isinstance(body, str):
            body = body.encode("utf-8", "surrogatepass")
        body = body if isinstance(body, bytes) else json_of(body)
        who = {"nobody": None}.get(says.get("as", "mallory"), says.get("as", "mallory"))
        wrong = []
        for url in self._doors(says.get("door", "api")):
            headers = plain(self._stage, who, body, url, b"application/json") if not says.get("bare") else []
            changed = header_pairs(says.get("headers", {}))
            names = {name.lower() for name, _ in changed}
            headers = [pair for pair in headers if pair[0].lower() not in names] + changed
            first = _bytes(says["line"]) or b""
            first = first if b" HTTP/" in first or says.get("bare") else first + b" HTTP/1.1"
            seconds = UNFINISHED_SECONDS if says.get("unfinished") else ANSWER_WITHIN
            wrong += self._judged(line.name, await raw_http(url, first, headers, body, seconds), says)
        return wrong

    def _doors(self, door: str) -> list[str]:
        workers = self._stage.listeners()
        return {"api": [self._stage.api], "serve": [self._stage.serve], "workers": list(workers.values())}[door]

    def _judged(self, what: str, answer: Answer, says: Mapping[str, Any]) -> list[str]:
        self.sent += 1
        self._watch.hear(what, answer)
        if says.get("refused") and 0 < answer.status < 400:
            return [f"{what}: answered {answer.status}, not refused: {answer.body[:120]!r}"]
        return unfit(what, answer)


def _bytes(value: Any) -> bytes | None:
    return value.encode("utf-8", "surrogatepass") if isinstance(value, str) else value
