"""What a company says, for rule 3: taken in record by record, in any order of topics, and put in order at the end."""

from collections.abc import Iterator, Mapping
from hashlib import sha256
from itertools import groupby
from typing import NamedTuple

from processors.dataset.lessons import Lesson, Talk, lessons, line_of, story_of
from processors.dataset.marks import HELD, Marks, Opinion, TakenAt, Telling
from processors.dataset.noticed import Noticed, Watch
from processors.dataset.offers import Offers
from processors.dataset.selection import Selection
from processors.dataset.turns import RULE, Manifest, canonical, in_order
from schemas.company import (
    AgentOutputIngested,
    ConversationIngested,
    FeedbackGiven,
    Message,
    ToolRegistered,
    ToolRevoked,
)
from schemas.envelope import Event
from schemas.tools import ToolReturned
from schemas.training import OffsetRange

THIRD = 3
Teaching = ConversationIngested | AgentOutputIngested


class Content(NamedTuple):
    """A talk that was not told before, as bytes for whoever keeps it until the end."""

    sha256: bytes
    text: bytes


class Story(NamedTuple):
    """One talk under one offer of tools, with every time that it was told."""

    sha256: str
    content: bytes
    tools: str | None
    told: tuple[Telling, ...]


class Gathering:
    """Holds no text of a conversation: `take` hands it on. What it holds grows by what `size` says, in bytes."""

    def __init__(self, select: Selection) -> None:
        self._select = select
        self._watch = Watch(select)
        self._told: dict[bytes, list[Telling]] = {}
        self._marks, self._offers = Marks(), Offers()
        self._held = 0

    @property
    def size(self) -> int:
        return self._held + self._marks.size + self._offers.size

    def take(self, event: Event, place: TakenAt) -> Content | None:
        """What one event of the company adds. Of an entity that is left out, nothing."""
        if self._watch.leaves_out(getattr(event, "entity", None)):
            return None
        if isinstance(event, ToolRegistered | ToolRevoked):
            self._offers.take(event, place)
        elif isinstance(event, FeedbackGiven) and self._select.outcomes:
            self._marks.feedback(event, place)
        elif isinstance(event, ToolReturned) and self._select.outcomes:
            self._marks.reply(event, place)
        elif isinstance(event, Teaching):
            self._watch.hears(event.agent)
            return self._tell(event, place) if self._is_selected(event) else None
        return None

    def noticed(self) -> Noticed:
        """When the opinions of every story were asked for."""
        return self._watch.noticed(self._marks.unheard)

    def stories(self) -> list[Story]:
        """In the order of their names, which is the order of the rows."""
        found = [story for content, told in self._told.items() for story in self._by_tools(content, told)]
        return sorted(found, key=lambda story: story.sha256)

    def opinions(self, story: Story, talk: Talk) -> Mapping[int, Opinion]:
        return self._marks.opinions(talk.messages, story.told)

    def _tell(self, event: Teaching, place: TakenAt) -> Content | None:
        talk = Talk.of(event.agent, _messages(event))
        text = canonical(talk)
        name = sha256(text).digest()
        good = event.success if isinstance(event, AgentOutputIngested) and self._select.outcomes else None
        told = self._told.setdefault(name, [])
        told.append(Telling(place, event.id, event.correlation, good))
        self._held += HELD
        return Content(name, text) if len(told) == 1 else None

    def _is_selected(self, event: Teaching) -> bool:
        select = self._select
        return (
            (not select.agents or event.agent in select.agents)
            and (not select.types or event.type in select.types)
            and (select.since is None or event.time >= select.since)
            and (select.until is None or event.time < select.until)
        )

    def _by_tools(self, content: bytes, told: list[Telling]) -> Iterator[Story]:
        offered = sorted(((self._offers.at(each.place) or "", each) for each in told), key=lambda pair: pair[0])
        for text, same in groupby(offered, key=lambda pair: pair[0]):
            tools = text or None
            yield Story(story_of(content, tools), content, tools, tuple(each for _, each in same))


def _messages(event: Teaching) -> tuple[Message, ...]:
    if isinstance(event, ConversationIngested):
        return event.messages
    answer = Message(role="assistant", content=event.output, tool_calls=event.tool_calls)
    return Message(role="user", content=event.prompt), answer


class LessonCounts:
    """Counts and hashes rows as they pass."""

    def __init__(self) -> None:
        self.records = self.rejected = 0
        self._left_out = self._repeats = self._bad = self._corrected = self._trained = self._held_out = 0
        self._digest = sha256()

    def rows(self, story: Story, talk: Talk, opinions: Mapping[int, Opinion]) -> Iterator[bytes]:
        self._repeats += len(story.told) - 1
        for lesson in lessons(talk, story.tools, story.sha256, opinions):
            if lesson is None:
                self._left_out += 1
            else:
                yield self._counted(lesson)

    def manifest(
        self, company: str, ranges: tuple[OffsetRange, ...], tools_from: tuple[OffsetRange, ...], select: Selection
    ) -> Manifest:
        return Manifest(
            company=company,
            rule=RULE,
            rule_version=THIRD,
            ranges=in_order(ranges),
            records=self.records,
            rejected=self.rejected,
            left_out=self._left_out,
            trained=self._trained,
            held_out=self._held_out,
            rows_sha256=self._digest.hexdigest(),
            select=select,
            tools_from=in_order(tools_from),
            repeats=self._repeats,
            bad=self._bad,
            corrected=self._corrected,
        )

    def _counted(self, lesson: Lesson) -> bytes:
        line = line_of(lesson)
        self._digest.update(line)
        bad = lesson.good is False
        self._bad += bad
        self._corrected += lesson.rejected is not None
        self._held_out += lesson.held_out
        self._trained += not lesson.held_out and not bad
        return line
