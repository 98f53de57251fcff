"""What a company says, for rule 3: taken in record by record, in any order of topics, and put in order at the end."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from hashlib import sha256
from typing import NamedTuple

from processors.dataset.lessons import Lesson, Talk, lessons, line_of, story_of
from processors.dataset.marks import HELD, Hearing, Marks, Opinion, TakenAt, Telling
from processors.dataset.noticed import Noticed, Watch
from processors.dataset.offers import Moment, Offers
from processors.dataset.selection import Selection
from processors.dataset.taught import AskedRules, Rule
from processors.dataset.turns import RULE, THIRD, Manifest, RuleUsed, canonical, in_order, is_held_out, question
from schemas.company import (
    OBSERVED,
    SYNTHETIC,
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

Teaching = ConversationIngested | AgentOutputIngested


class Content(NamedTuple):
    """A talk that was not told before, as bytes for whoever keeps it until the end."""

    sha256: bytes
    text: bytes


class _Said(NamedTuple):
    """A talk of an event, its own or made of it. `good`: what who answered says of himself."""

    talk: Talk
    type: str
    good: bool | None = None
    origin: str = OBSERVED


class Lying(NamedTuple):
    """Where somebody keeps bytes for us."""

    start: int
    size: int


Keep = Callable[[bytes], Lying]


class Story(NamedTuple):
    """One talk under one offer of tools, with every time that it was told."""

    sha256: str
    content: bytes
    tools: Lying | None
    told: Sequence[Telling]


Told = list[tuple[bytes, Telling]]


class _Offered(NamedTuple):
    """What was told while the same tools were on offer. `first`: a moment when they were."""

    first: Moment
    told: dict[bytes, list[Telling]]


class Gathering:
    """Holds no text of a conversation, nor of an offer: it hands them on. What it holds grows by what `size` says, in
    bytes."""

    def __init__(self, select: Selection, rules: Sequence[Rule] = ()) -> None:
        self._select, self._taught = select, AskedRules(rules)
        self._watch, self._agents = Watch(select), frozenset(select.agents)
        self._entities, self._measured_on = frozenset(select.entities), frozenset(select.held_out)
        self._questions: set[bytes] = set()
        self._told: dict[bytes, list[Telling]] = {}
        self._marks, self._offers = Marks(), Offers()
        self._held = 0
        self.shown = 0
        """Bytes of tools that the rows of all stories hold at least."""

    @property
    def size(self) -> int:
        return self._held + self._marks.size + self._offers.size

    def take(self, event: Event, place: TakenAt) -> Sequence[Content]:
        """What one event of the company adds. Of an entity that is left out, nothing."""
        entity = getattr(event, "entity", None)
        if isinstance(event, Teaching) or type(event) in self._taught.kinds:
            self._watch.hears_of(entity)
        if self._watch.leaves_out(entity):
            return ()
        if isinstance(event, ToolRegistered | ToolRevoked):
            self._offers.take(event, place)
        elif isinstance(event, FeedbackGiven) and self._select.outcomes:
            self._marks.feedback(event, place)
        elif isinstance(event, ToolReturned) and self._select.outcomes:
            self._marks.reply(event, place)
        told = (self._tell(event, said, place) for said in self._said(event, place) if self._hears(event, said))
        return [content for content in told if content]

    def noticed(self) -> Noticed:
        """When the opinions of every story were asked for."""
        return self._watch.noticed(self._marks.unheard)._replace(failures=self._taught.failures())

    def rules(self) -> tuple[RuleUsed, ...]:
        return self._taught.used()

    def stories(self, keep: Keep) -> Iterator[Story | None]:
        """In no order. None: a moment to look at `size` and `shown`, and for others to have their turn."""
        moments: dict[Moment, Told] = {}
        for content, told in self._told.items():
            for each in told:
                self._at(moments, self._offers.moment(each.place)).append((content, each))
                yield None
        offered: dict[int, _Offered] = {}
        yield from self._by_offer(moments, offered)
        yield from self._of_offers(offered, keep)

    def is_held_out(self, talk: Talk) -> bool:
        """When all is taken in: a question that is measured on in one place is trained on in none. What the rule holds
        out no selection teaches, so that any two adapters can be compared on it."""
        asked = question(talk.messages)
        return is_held_out(asked) or _of(asked) in self._questions

    def hearing(self, talk: Talk) -> Hearing:
        return Hearing(self._marks, talk.messages)

    def _at(self, moments: dict[Moment, Told], moment: Moment) -> Told:
        self._held += 0 if moment in moments else HELD
        return moments.setdefault(moment, [])

    def _by_offer(self, moments: dict[Moment, Told], offered: dict[int, _Offered]) -> Iterator[None]:
        """Moment by moment; that tools were on offer, gone, and on offer again makes no two offers."""
        standing = self._offers.standing()
        for moment in sorted(moments):
            yield from standing.go_to(moment)
            same = offered.setdefault(standing.mark, _Offered(moment, {}))
            for content, each in moments.pop(moment):
                same.told.setdefault(content, []).append(each)
                yield None

    def _of_offers(self, offered: Mapping[int, _Offered], keep: Keep) -> Iterator[Story | None]:
        standing = self._offers.standing()
        for first, told in offered.values():
            yield from standing.go_to(first)
            self._held += HELD * len(told)
            self.shown += standing.size * len(told)
            yield None
            text = standing.text() or None
            tools = keep(text.encode()) if text else None
            for content, tellings in told.items():
                yield Story(story_of(content, text), content, tools, tellings)

    def _said(self, event: Event, place: TakenAt) -> Sequence[_Said]:
        if type(event) in self._taught.kinds:
            talks = self._taught.talks(event, place)
            return [_Said(Talk.of(talk.agent, talk.messages), event.type) for talk in talks]
        return [_said_in(event)] if isinstance(event, Teaching) else ()

    def _hears(self, event: Event, said: _Said) -> bool:
        self._watch.hears(said.talk.agent, said.type, said.origin)
        return self._is_selected(event, said)

    def _tell(self, event: Event, said: _Said, place: TakenAt) -> Content | None:
        text = canonical(said.talk)
        name = sha256(text).digest()
        good = said.good if self._select.outcomes else None
        told = self._told.setdefault(name, [])
        told.append(Telling(place, event.id, event.correlation, good, said.origin == SYNTHETIC))
        self._held += HELD * (2 if len(told) == 1 else 1) + len(event.id) + len(event.correlation)
        if getattr(event, "entity", None) in self._measured_on:
            self._questions.add(_of(question(said.talk.messages)))
        return Content(name, text) if len(told) == 1 else None

    def _is_selected(self, event: Event, said: _Said) -> bool:
        select = self._select
        return (
            (not self._agents or said.talk.agent in self._agents)
            and (not self._entities or getattr(event, "entity", None) in self._entities)
            and (not select.types or said.type in select.types)
            and (not select.origins or said.origin in select.origins)
            and (select.since is None or event.time >= select.since)
            and (select.until is None or event.time < select.until)
        )


def _of(asked: str) -> bytes:
    """As `is_held_out` tells questions apart."""
    return sha256(asked.strip().encode()).digest()


def _said_in(event: Teaching) -> _Said:
    """What is not said to be made was observed."""
    if isinstance(event, ConversationIngested):
        origin = SYNTHETIC if event.origin == SYNTHETIC else OBSERVED
        return _Said(Talk.of(event.agent, event.messages), event.type, origin=origin)
    answer = Message(role="assistant", content=event.output, tool_calls=event.tool_calls)
    talk = Talk.of(event.agent, (Message(role="user", content=event.prompt), answer))
    return _Said(talk, event.type, good=event.success)


class LessonCounts:
    """Counts and hashes rows as they pass."""

    def __init__(self) -> None:
        self.records = self.rejected = 0
        self._left_out = self._repeats = self._bad = self._corrected = self._trained = self._held_out = 0
        self._synthetic = 0
        self._digest = sha256()

    def rows(
        self, story: Story, talk: Talk, tools: str | None, opinions: Mapping[int, Opinion], held_out: bool
    ) -> Iterator[bytes]:
        self._repeats += len(story.told) - 1
        made = all(each.synthetic for each in story.told)
        for lesson in lessons(talk, tools, story.sha256, opinions, held_out):
            if lesson is None:
                self._left_out += 1
            else:
                self._synthetic += made
                yield self._counted(lesson)

    def manifest(
        self,
        company: str,
        ranges: tuple[OffsetRange, ...],
        tools_from: tuple[OffsetRange, ...],
        select: Selection,
        rules: tuple[RuleUsed, ...] = (),
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
            synthetic=self._synthetic or None,
            rules=rules or None,
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
