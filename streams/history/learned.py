"""Rule 3 over the log: the company's own records into a gathering, the talks into a file, rows out in their order."""

from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from tempfile import TemporaryFile
from typing import IO, NamedTuple

import msgspec

from processors.dataset.gathering import Content, Gathering, LessonCounts, Lying, Story
from processors.dataset.lessons import Talk
from processors.dataset.marks import Opinion, TakenAt
from processors.dataset.noticed import Noticed
from processors.dataset.selection import Selection
from processors.dataset.taught import Rule
from processors.dataset.turns import Manifest, in_order
from schemas.company import ToolRegistered, ToolRevoked
from schemas.rejected import Rejected
from schemas.topics import TopicNames
from schemas.training import OffsetRange
from streams.errors import TooMuchData
from streams.fairness.slices import Slices
from streams.fold.old_ground import Letters
from streams.history.places import Places
from streams.history.whose import Owner
from streams.log.port import EventLog, Record, TopicPartition

OnRange = Callable[[OffsetRange, int], None]
"""(range, the offset up to which it was read)."""

OnNoticed = Callable[[Noticed], None]
"""Told once, when the rows stand."""


class Wanted(NamedTuple):
    """One dataset: whose, out of what, and how large it may be."""

    company: str
    ranges: Sequence[OffsetRange]
    tools_from: Sequence[OffsetRange]
    select: Selection
    most_bytes: float
    rules: Sequence[Rule] = ()


class Learned:
    """Memory: one batch, and half a KiB for each conversation told, each word about one and each offer of tools.

    The rows, apart from them all that is held here, and what rules make, are at most `most_bytes`; talks, and each
    offer of tools that a story was told under, lie in a nameless file.
    """

    def __init__(
        self,
        log: EventLog,
        names: TopicNames,
        wanted: Wanted,
        slices: Slices,
        places: Places,
        letters: Mapping[TopicPartition, Letters],
    ) -> None:
        self._log, self._names, self._wanted, self._slices, self._places = log, names, wanted, slices, places
        self._owner = Owner(wanted.company, names, letters)
        self._gathering, self._counts = Gathering(wanted.select, wanted.rules), LessonCounts()
        self._talks: dict[bytes, Lying] = {}
        self._taught = 0
        """Bytes that an application's rules have made: no event of the log holds them, however few there are."""
        self._last: object = "the beginning"

    async def build(self, rows: Path, provenance: Path | None, on_range: OnRange, on_noticed: OnNoticed) -> Manifest:
        wanted = self._wanted
        with TemporaryFile(dir=rows.parent) as apart:
            for part in in_order(wanted.tools_from):
                await self._gather(part, apart, on_range, tools_only=True)
            for part in in_order(wanted.ranges):
                await self._gather(part, apart, on_range)
            with ExitStack() as files:
                out = files.enter_context(rows.open("wb"))
                beside = files.enter_context(provenance.open("wb")) if provenance else None
                for story in await self._stories(apart):
                    await self._write(story, apart, out, beside)
        on_noticed(self._gathering.noticed())
        ranges, before, rules = tuple(wanted.ranges), tuple(wanted.tools_from), self._gathering.rules()
        return self._counts.manifest(wanted.company, ranges, before, wanted.select, rules)

    async def _gather(self, part: OffsetRange, apart: IO[bytes], on_range: OnRange, tools_only: bool = False) -> None:
        wire, company = self._names.wire(part.topic), self._wanted.company
        async for batch in self._places.read(self._log, wire, part.partition, part.start, part.stop, company):
            async for record in self._own(batch):
                self._take(record, part.topic, apart, tools_only)
            on_range(part, batch[-1].offset + 1)
        on_range(part, part.stop)

    async def _own(self, batch: Sequence[Record]) -> AsyncIterator[Record]:
        for record in batch:
            if self._owner.may_own(record):
                yield record
            await self._let_others()

    async def _let_others(self) -> None:
        if self._slices.over():
            await self._slices.give_up()

    def _take(self, record: Record, topic: str, apart: IO[bytes], tools_only: bool) -> None:
        event = self._owner.read(record)
        if tools_only and not isinstance(event, ToolRegistered | ToolRevoked):
            return
        if not tools_only and event is not None:
            self._counts.records += 1
        if isinstance(event, Rejected):
            self._counts.rejected += 1
        elif event is not None:
            place = TakenAt(record.timestamp, topic, record.partition, record.offset)
            contents = self._gathering.take(event, place)
            if any(type(event) in rule.kinds for rule in self._wanted.rules):
                self._taught += sum(len(content.text) for content in contents)
            self._keep(contents, apart, place)

    def _keep(self, contents: Sequence[Content], apart: IO[bytes], place: TakenAt) -> None:
        self._last = place
        for content in contents:
            self._talks[content.sha256] = _put(apart, content.text)
        self._must_fit(max(self._gathering.size, self._taught))

    def _must_fit(self, size: int) -> None:
        if size > self._wanted.most_bytes:
            raise TooMuchData(self._wanted.company, self._last, self._wanted.most_bytes)

    async def _stories(self, apart: IO[bytes]) -> list[Story]:
        """In the order of their names, which is the order of the rows."""
        found = []
        for story in self._gathering.stories(lambda tools: _put(apart, tools)):
            if story is None:
                self._must_fit(max(self._gathering.size, self._gathering.shown))
            else:
                found.append(story)
            await self._let_others()
        return sorted(found, key=lambda story: story.sha256)

    async def _write(self, story: Story, apart: IO[bytes], out: IO[bytes], beside: IO[bytes] | None) -> None:
        self._last = story.told[0].place
        talk = msgspec.json.decode(_got(apart, self._talks[story.content]), type=Talk)
        tools = _got(apart, story.tools).decode() if story.tools else None
        hearing = self._gathering.hearing(talk)
        for told in story.told:
            hearing.hear(told)
            await self._let_others()
        opinions = hearing.opinions()
        for line in self._counts.rows(story, talk, tools, opinions, self._gathering.is_held_out(talk)):
            out.write(line)
            self._must_fit(out.tell())
            await self._let_others()
        if beside is not None:
            beside.write(_provenance(story, opinions))


def _put(apart: IO[bytes], text: bytes) -> Lying:
    start = apart.tell()
    apart.write(text)
    return Lying(start, len(text))


def _got(apart: IO[bytes], lying: Lying) -> bytes:
    apart.seek(lying.start)
    return apart.read(lying.size)


def _provenance(story: Story, opinions: Mapping[int, Opinion]) -> bytes:
    """Where a story was told, and where its answers were judged. A line a story."""
    judged = {str(turn): [str(place) for place in opinion.said_at] for turn, opinion in sorted(opinions.items())}
    told = sorted(each.place for each in story.told)
    return (
        msgspec.json.encode({"story": story.sha256, "from": [str(place) for place in told], "judged": judged}) + b"\n"
    )
