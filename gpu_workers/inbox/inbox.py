"""Where requests wait that were polled and are not finished: nothing is committed beyond the first of them."""

from __future__ import annotations

import asyncio
from collections import Counter, OrderedDict
from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from typing import NamedTuple

from schemas.envelope import Event
from streams.errors import Fenced
from streams.fairness.urgency import ByUrgency
from streams.log.port import Record, Subscription, TopicPartition

MOST = 100_000
"""Requests that wait here at once, of a few hundred bytes each; the rest waits in the log."""
EACH = MOST // 10
"""Of one company: who asks for more is told so at once, and the room of the others stays theirs."""
TOO_MANY = "too_many_requests"
"""The reason that both workers give."""
POLLED = 500
"""Records of one poll: requests among them may be large."""

Polled = Mapping[TopicPartition, Sequence[Record]]


class Item(NamedTuple):
    """Where a request stands in the log, and whose it is. Its words are read again when its turn comes."""

    place: TopicPartition
    offset: int
    company: str
    id: str
    correlation: str = ""
    """Empty: its own id, as of most."""
    priority: int = 0
    """Among those of its company that wait; a lower one goes first."""

    @classmethod
    def of(cls, request: Event, place: TopicPartition, offset: int, priority: int = 0) -> Item:
        story = "" if request.correlation == request.id else request.correlation
        return cls(place, offset, request.company, request.id, story, priority)

    def envelope(self) -> Event:
        """As much of the request as an answer needs that repeats none of its words."""
        return Event(id=self.id, type="", company=self.company, time=0, correlation=self.correlation or self.id)


class Inbox:
    """Work goes on for minutes while the group is polled: this remembers what came meanwhile.

    Companies take turns: whoever asks a thousand times waits for himself. At most `share` of one are begun at once, and
    at most `each` of one are here.
    """

    def __init__(self, most: int = MOST, share: int = MOST, each: int = EACH) -> None:
        self._most, self._share, self._each = most, share, each
        self._lines: OrderedDict[str, ByUrgency[Item]] = OrderedDict()
        """Who is not begun, a line a company; the company whose turn is longest ago stands first."""
        self._begun: dict[str, set[Item]] = {}
        self._held: dict[TopicPartition, OrderedDict[int, Item]] = {}
        """In the lines and begun, by offset."""
        self._came = 0
        self._places: dict[Item, int] = {}
        """As they came."""
        self._ids: Counter[tuple[str, str]] = Counter()
        self._polled: dict[TopicPartition, int] = {}
        self._generation = 0
        self._lost = False

    def __len__(self) -> int:
        return sum(map(len, self._held.values()))

    async def poll(self, group: Subscription, seconds: float) -> Polled:
        """A group lets go of who does not poll: so a full inbox polls on, and puts back what came."""
        if not self.full():
            return await group.poll(seconds, min(self._most - len(self), POLLED))
        for place, records in (await group.poll(seconds, 1)).items():
            with suppress(Fenced):
                await group.seek(place, records[0].offset)
        await asyncio.sleep(seconds)
        return {}

    async def ours(self, group: Subscription, polled: Polled) -> Polled:
        """What of it is ours to do by now; what belongs to another worker is dropped.

        Given out anew once, a partition that is still here never left. More than once, it may have been away: then
        nothing that is known of it holds, this poll included, and it begins again at what is committed.
        """
        generation, known = group.generation(), self._generation
        self._generation = generation
        if self._lost or (known and generation > known + 1):
            self.forget()
            self._lost, polled = False, {}
            for place, offset in (await group.committed()).items():
                with suppress(Fenced):
                    await group.seek(place, offset)
        assignment = group.assignment()
        self.keep_only(assignment)
        return {place: records for place, records in polled.items() if place in assignment}

    def add(self, item: Item) -> None:
        """A record that comes again after a rebalance is the one that is held already."""
        held = self._held.setdefault(item.place, OrderedDict())
        if item.offset not in held:
            behind = bool(held) and item.offset < next(reversed(held))
            held[item.offset] = item
            if behind:
                self._held[item.place] = OrderedDict(sorted(held.items()))
            self._came += 1
            self._places[item] = self._came
            self._join(item)
            self._ids[item.company, item.id] += 1

    def passed(self, place: TopicPartition, offset: int) -> None:
        """All below the offset was polled: it is held here, or needs nothing more."""
        self._polled[place] = offset

    def polled_to(self, place: TopicPartition) -> int:
        return self._polled.get(place, 0)

    def has(self, company: str, id_: str) -> bool:
        return (company, id_) in self._ids

    def full(self) -> bool:
        return len(self) >= self._most

    def crowded(self, company: str) -> str | None:
        """Why no more of this company's may be added, and what it can do; None: there is room."""
        here = len(self._lines.get(company, ())) + len(self._begun.get(company, ()))
        if here < self._each:
            return None
        return f"{here} requests of {company} wait here already. Send it again when some have ended."

    def first(self, resting: Collection[str] = ()) -> Item | None:
        """Whose turn it is, among all others."""
        for company, line in self._lines.items():
            if company not in resting and len(self._begun.get(company, ())) < self._share:
                return line.first()
        return None

    def begun(self, item: Item) -> None:
        line = self._lines[item.company]
        line.goes(item)
        if line:
            self._lines.move_to_end(item.company)
        else:
            del self._lines[item.company]
        self._begun.setdefault(item.company, set()).add(item)

    def put_back(self, item: Item) -> None:
        """What was begun, and is not to be done now: it stands again where it came."""
        if self.holds(item):
            begun = self._begun.get(item.company, set())
            begun.discard(item)
            if not begun:
                self._begun.pop(item.company, None)
            self._join(item)

    def holds(self, item: Item) -> bool:
        return self._at(item.place, item.offset) == item

    def waiting(self, place: TopicPartition, offset: int) -> Item | None:
        """What is not begun there."""
        item = self._at(place, offset)
        return item if item and item not in self._begun.get(item.company, ()) else None

    def finished(self, item: Item) -> None:
        """What was begun."""
        if self.holds(item):
            del self._held[item.place][item.offset]
            self._forget_one(item)

    def waiting_of(self, company: str, ids: Collection[str]) -> list[str]:
        """Which of them are not begun, in the order of their line."""
        return list(dict.fromkeys(item.id for item in self._lines.get(company, ()) if item.id in ids))

    def drop(self, company: str, ids: Collection[str]) -> list[Item]:
        """Those that are not begun leave their line: they need nothing more."""
        gone = [item for item in self._lines.get(company, ()) if item.id in ids]
        for item in gone:
            del self._held[item.place][item.offset]
            self._forget_one(item)
        return gone

    def keep_only(self, assignment: Collection[TopicPartition]) -> None:
        """What belongs to another worker by now is that worker's to do."""
        self._polled = {place: offset for place, offset in self._polled.items() if place in assignment}
        if not (gone := set(self._held) - set(assignment)):
            return
        for place in gone:
            for item in self._held.pop(place).values():
                self._forget_one(item)

    def committable(self) -> dict[TopicPartition, int]:
        """For each partition the next offset that somebody would have to read after a crash."""
        return {place: next(iter(self._held.get(place) or [offset])) for place, offset in self._polled.items()}

    def current(self, group: Subscription) -> bool:
        """Nothing was given out anew since the last poll was looked at: what is held here may be committed."""
        return group.generation() == self._generation and not self._lost

    def forget(self) -> None:
        """What was held may be another's: the next poll begins at what is committed."""
        for known in (self._lines, self._begun, self._held, self._ids, self._polled, self._places):
            known.clear()
        self._lost = True

    def _at(self, place: TopicPartition, offset: int) -> Item | None:
        held = self._held.get(place)
        return held.get(offset) if held else None

    def _join(self, item: Item) -> None:
        self._lines.setdefault(item.company, ByUrgency()).join(item, self._places[item], item.priority)

    def _forget_one(self, item: Item) -> None:
        del self._places[item]
        if (line := self._lines.get(item.company)) and line.leave(item) and not line:
            del self._lines[item.company]
        begun = self._begun.get(item.company, set())
        begun.discard(item)
        if not begun:
            self._begun.pop(item.company, None)
        self._ids[item.company, item.id] -= 1
        if not self._ids[item.company, item.id]:
            del self._ids[item.company, item.id]
