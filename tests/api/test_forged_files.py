"""Files and runs that a company's key says there are, of any size and anywhere: no request reads or holds for them what
it likes."""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from typing import Any

import openai
import pytest

from processors.tuning.names import FILE_PREFIX, JOB_PREFIX, new_name
from projections.training_runs import TRAINING_RUNS
from projections.tuning.files import FILES
from rillfold.api.tuning import reading
from rillfold.api.tuning.story import NewestSaid
from schemas.training import TrainingProgressed, TrainingRequested
from streams.log.memory import MemoryLog
from streams.log.outgoing import to_outgoing
from streams.log.partitioner import partition_of
from streams.log.port import Record
from tests.support.tuned import line, talk

from .test_tuning import NAMES, House, Open, house, tiny_base

__all__ = ["house", "tiny_base"]

NOTHING = hashlib.sha256(b"").hexdigest()
TOPIC = "company-data"


class ReadingLog(MemoryLog):
    """What was read, and for as long as it is told to."""

    def __init__(self) -> None:
        super().__init__()
        self.readings, self.records = Counter[str](), 0

    async def read(
        self, topic: str, partition: int, start: int, stop: int | None = None, *beat: Any
    ) -> AsyncIterator[Sequence[Record]]:
        self.readings[topic] += 1
        async for batch in super().read(topic, partition, start, stop, *beat):
            self.records += len(batch)
            yield batch


def a_range(start: int = 0, stop: int = 0, partition: int = 0) -> dict[str, Any]:
    return {"topic": TOPIC, "partition": partition, "start": start, "stop": stop}


def forged(at: int, ranges: list[dict[str, Any]], size: int = 5, **more: Any) -> dict[str, Any]:
    """As anybody with the company's key may produce it."""
    told = {"purpose": "fine-tune", "method": "supervised", "size": size, "sha256": NOTHING, "lines": 1}
    name = new_name(FILE_PREFIX, at, f"{at:08x}")
    return {"type": "file.uploaded", "entity": name, "name": "a", "time": 1_000_000, **told, "ranges": ranges, **more}


async def produce(one: House, topic: str, *events: dict[str, Any]) -> None:
    answer = await one.world.api.ask("POST", f"/topics/{topic}", one.world.api.acme, json=list(events))
    assert answer.status_code == 201, answer.text
    await folded(one)


async def folded(one: House) -> None:
    """What keeps up has done so."""
    reads, log = one.world.api.services.reads, one.world.driver.log
    for projection in (FILES, TRAINING_RUNS):
        (topic,) = projection.topics
        ends = {partition: end for partition, end in (await log.ends(topic)).items() if end}
        async with asyncio.timeout(30):
            while not ends.items() <= (await reads.positions(projection, None)).get(topic, {}).items():  # noqa: ASYNC110
                await asyncio.sleep(0.05)


FORGED: dict[str, dict[str, Any]] = {
    "no place": {"ranges": []},
    "two places": {"ranges": [a_range(0, 1), a_range(0, 1)]},
    "a thousand places": {"ranges": [a_range(0, 1)] * 1_000},
    "another topic": {"ranges": [a_range(0, 1) | {"topic": "tool-result"}]},
    "less than nothing": {"ranges": [a_range()], "size": -1},
    "of no bytes": {"ranges": [a_range()], "size": 0},
    "larger than a file may be": {"ranges": [a_range()], "size": (64 << 20) + 1},
    "a name that is a book": {"ranges": [a_range()], "name": "x" * 60_000},
    "sent at no time": {"ranges": [a_range()], "time": 0},
}


async def test_what_this_door_never_wrote_is_no_file(house: Open) -> None:
    log = ReadingLog()
    async with house(log) as one:
        sent = await one.upload(line(talk()).encode())
        events = [forged(n, **{"ranges": [], **given}) for n, given in enumerate(FORGED.values(), 1)]
        await produce(one, TOPIC, *events)
        before = log.readings[TOPIC]
        assert [each.id for each in (await one.client.files.list()).data] == [sent.id]
        for name, event in zip(FORGED, events, strict=True):
            for ask in (one.client.files.retrieve, one.client.files.content, one.client.files.delete):
                with pytest.raises(openai.NotFoundError):
                    await ask(event["entity"])
            with pytest.raises(openai.BadRequestError, match="no file"):
                await one.create(training_file=event["entity"])
            assert log.readings[TOPIC] == before, name
        assert (await one.client.files.content(sent.id)).content == line(talk()).encode()


async def test_a_file_is_as_large_as_it_says_or_it_is_not_whole(house: Open) -> None:
    """What was never sent does not break the answer, and what is more than it says is not kept."""
    content = b"".join(line(talk(f"What is due on day {n}?", "x" * 400)).encode() for n in range(3_000))
    async with house(ReadingLog()) as one:
        sent = await one.upload(content)
        texts = [event.text for event in await one.world.api.events(TOPIC) if event.type == "file.part"]
        assert len(texts) > 2
        larger, smaller = forged(1, [], size=5), forged(2, [], size=len(content) + 1)
        for event in (larger, smaller):
            name = event["entity"]
            for n, text in enumerate(texts):
                await produce(one, TOPIC, {"type": "file.part", "entity": name, "part": n, "text": text})
            ends = await one.world.driver.log.ends(TOPIC)
            at = partition_of(f"acme/{name}".encode(), len(ends))
            whole = {"ranges": [a_range(0, ends[at], at)], "sha256": hashlib.sha256(content).hexdigest()}
            await produce(one, TOPIC, event | whole)
            with pytest.raises(openai.ConflictError, match="does not hold"):
                await one.client.files.content(name)
        empty = forged(3, [a_range(0, 0)], size=5)
        await produce(one, TOPIC, empty)
        with pytest.raises(openai.ConflictError, match="does not hold"):
            await one.client.files.content(empty["entity"])
        assert (await one.client.files.content(sent.id)).content == content


async def test_a_stretch_without_end_is_given_up(house: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever a company says of where its file stands: so long, and no longer."""
    monkeypatch.setattr(reading, "READ_SECONDS", 0.05)

    class Slow(MemoryLog):
        async def read(self, topic: str, partition: int, start: int, stop: int | None = None, *beat: Any) -> Any:
            async for batch in super().read(topic, partition, start, stop, *beat):
                if (topic, start, stop) == (TOPIC, 0, 1):
                    await asyncio.sleep(30)
                yield batch

    async with house(Slow()) as one:
        await produce(one, TOPIC, *(forged(n, [a_range(0, 1, n)]) for n in range(6)))
        ends = await one.world.driver.log.ends(TOPIC)
        partition = next(each for each in range(6) if ends[each])
        path = f"/v1/files/{forged(partition, [])['entity']}/content"
        answer = await one.world.api.ask("GET", path, one.world.api.acme)
        assert answer.status_code == 503 and answer.headers["Retry-After"], answer.text
        assert answer.json()["error"]["code"] == "too_slow"


async def test_a_list_of_files_is_as_long_as_was_asked_for_in_either_order(house: Open) -> None:
    async with house(MemoryLog()) as one:
        sent = [(await one.upload(line(talk(f"Day {n}?")).encode())).id for n in range(5)]
        await produce(one, TOPIC, *(forged(n, [a_range()] * 2) for n in range(1, 4)))

        async def page(**asked: Any) -> tuple[list[str], bool]:
            found = await one.client.files.list(**asked)
            return [each.id for each in found.data], bool(found.has_more)

        assert await page() == (sent[::-1], False)
        assert await page(limit=2) == ([sent[4], sent[3]], True)
        assert await page(limit=2, after=sent[3]) == ([sent[2], sent[1]], True)
        assert await page(limit=5) == (sent[::-1], False)
        assert await page(order="asc") == (sent, False)
        assert await page(order="asc", limit=2) == (sent[:2], True)
        assert await page(order="asc", limit=2, after=sent[1]) == (sent[2:4], True)
        assert await page(order="asc", limit=2, after=sent[3]) == (sent[4:], False)
        assert await page(purpose="assistants") == ([], False)


async def test_a_jobs_story_is_told_a_page_at_a_time_and_holds_no_more(house: Open) -> None:
    run = new_name(JOB_PREFIX, 1_000_000, "0" * 8)
    settings = json.dumps({"select": {"entities": [new_name(FILE_PREFIX, 1, "0" * 8)]}})
    request = {"type": "training.requested", "id": run, "base_model": "tiny", "time": 0, "settings": settings}
    back = [{"type": "training.withdrawn", "id": f"w{n}", "run": run, "reason": "x" * 60} for n in range(500)]
    async with house(MemoryLog()) as one:
        await produce(one, "training-request", *back[:250], request, *back[250:])
        told = [each.message for each in (await one.jobs.list_events(run, limit=100)).data]
        assert sorted(told) == ["Cancellation was asked for", f"Created fine-tuning job: {run}"]


def test_of_a_story_no_more_is_held_than_is_told() -> None:
    story = NewestSaid(3, before="p90")
    assert next(n for n in range(100) if not story.take(progressed("r", n))) == 90
    assert [*story.events] == ["p87", "p88", "p89"]


async def test_every_page_of_a_story_is_the_next_one(house: Open) -> None:
    run = new_name(JOB_PREFIX, 1_000_000, "0" * 8)
    settings = json.dumps({"select": {"entities": [new_name(FILE_PREFIX, 1, "0" * 8)]}})
    request = TrainingRequested(id=run, company="acme", time=1, correlation=run, base_model="tiny", settings=settings)
    steps = [progressed(run, n) for n in range(30)]
    async with house(MemoryLog()) as one:
        await one.world.driver.log.append([to_outgoing(each, NAMES) for each in (request, *steps, steps[-1])])
        await folded(one)
        everything = [each.id async for each in one.jobs.list_events(run, limit=7)]
        assert everything == [f"ftevent-{each.id}" for each in (*steps[::-1], request)]
        assert len((await one.jobs.list_events(run, limit=7)).data) == 7
        assert (await one.jobs.list_events(run, limit=7, after="ftevent-none")).data[0].id == everything[0]


def progressed(run: str, step: int) -> Any:
    return TrainingProgressed(
        id=f"p{step}", company="acme", time=2 + step, correlation=run, run=run, phase="train", step=step, steps=30
    )
