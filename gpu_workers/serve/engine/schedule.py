"""What goes through the model next. Plain data and plain rules: no tensor is seen here."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Generic, NamedTuple

from gpu_workers.refused import TooLong
from gpu_workers.serve.engine.line import Line
from gpu_workers.serve.engine.pages import PUBLIC, Label, Node, Pages
from gpu_workers.serve.engine.portions import portions
from gpu_workers.serve.engine.rows import Adapter, EngineRow, Feed, Limits, StepBatch

__all__ = ["EngineRow", "Feed", "Limits", "Schedule", "StepBatch"]

AGAIN_SHARE = 16
"""Who gives way is computed again later: so many tokens of that, at most, for each one that it said in its turn."""


@dataclass(eq=False, slots=True)
class _Standing:
    """What is known of a row from the day it comes until it leaves."""

    place: int
    """Of all rows: who came first has the lowest."""
    runs: bool = False
    answers: bool = False
    """It was asked for a token since it was let in: it is beyond its prompt."""
    began: int = 0
    """How much it had said when it was let in."""
    times: int = 0
    """It was let in so often."""
    reached: int = 0
    """Tokens that its owner need not pay: they are paid, or were never computed."""
    prepaid: int = 0
    hasty: bool = False
    """It has waited for another owner's row long enough."""
    chain: list[Node] = field(default_factory=list)
    """Its full pages, as far as others find them."""
    matched: int = 0
    """So many of them were there before."""
    shares: bool = True
    behind: list[_Behind] = field(default_factory=list)


class _Behind(NamedTuple):
    """A row that waits for what a running one computes for both."""

    row: EngineRow[Any]
    standing: _Standing
    fed: int
    until: int | None


class Schedule(Generic[Adapter]):
    """Owners take turns, each first come, first served. Answers get on in every step, and prompts share what is left.

    Nobody is overtaken for being too long for the room that is left: the others end, or have had their turn and go back
    to the line for an owner who has nothing running, and then there is room.

    Pages are taken as rows grow. When none is left, the newest row of the owner who had most gives way; the oldest of
    who had least never does, and would fit alone, so something always gets on.
    """

    def __init__(self, limits: Limits) -> None:
        self.limits = limits
        self.pages = Pages(limits.pages)
        self.running: list[EngineRow[Adapter]] = []
        self._step = max(limits.step, 2 * limits.rows)
        self._line: Line[EngineRow[Adapter]] = Line()
        self._standings: dict[EngineRow[Adapter], _Standing] = {}
        self._came = 0
        self._steps = 0

    @property
    def waiting(self) -> list[EngineRow[Adapter]]:
        return [row for row, standing in self._standings.items() if not standing.runs]

    def submit(self, row: EngineRow[Adapter]) -> None:
        if self.pages.of(row.final_length) > self.pages.usable:
            most = self.pages.usable * self.pages.size
            raise TooLong(f"{row.final_length} tokens of prompt and answer; one row may have {most} here.")
        self._came += 1
        self._standings[row] = _Standing(self._came)
        self._line.opened(row.owner)
        self._line.join(row, self._came)

    def next(self) -> StepBatch[Adapter] | None:
        """None: nobody is there."""
        self._steps += 1
        for row in self.running:
            self._wake(self._standings[row], row.fed)
        self._let_in()
        return self._batch() if self.running else None

    def fed(self, feeds: Iterable[Feed[Adapter]]) -> None:
        """Their KV is written, and before anything more is said: full pages can be read by others from now on."""
        for feed in feeds:
            standing = self._standings.get(feed.row)
            if standing is not None and standing.runs:
                feed.row.fed = feed.start + feed.count
                standing.answers |= feed.asks
                self._pay(feed.row, standing)
                self._remember(feed.row, standing)

    def leave(self, rows: Iterable[EngineRow[Adapter]], forget: bool = False) -> None:
        """Rows leave wherever they are. `forget`: something is wrong with them, and with what they may have read."""
        for row in rows:
            if (standing := self._standings.pop(row, None)) is None:
                continue
            if forget:
                self._forget(standing)
            if standing.runs:
                self._stop(row, standing)
            self._line.pull(row)
            self._line.closed(row.owner)

    # Letting in

    def _let_in(self) -> None:
        owed = self._owed(self.running)
        while self._may_change() and (found := self._first()) is not None:
            if not self._fits(*found, owed):
                if not self._make_way(*found):
                    return
                owed = self._owed(self.running)
            self._seat(*found)
            owed += self._owed(self.running[-1:])

    def _may_change(self) -> bool:
        return len(self.running) < self.limits.rows or any(self._had_its_turn(row) for row in self.running)

    def _first(self) -> tuple[EngineRow[Adapter], list[Node]] | None:
        """The first in the line, and what is there of its prefix. Who waits for a running row is overtaken."""
        while (row := self._line.first()) is not None:
            prefix = self.pages.find(self._labels(row))
            if not self._waits(row, prefix):
                return row, prefix
        return None

    def _labels(self, row: EngineRow[Adapter]) -> Iterator[Label | None]:
        """Without its last token: that one is always fed, for what the model says to it."""
        return (row.label(page, self.pages.size) for page in range((row.length - 1) // self.pages.size))

    def _waits(self, row: EngineRow[Adapter], prefix: list[Node]) -> bool:
        """Is its next page being computed right now? Then it waits for all that the two have in common.

        For another owner's row, which may have to wait itself, only as long as that should take.
        """
        standing, done = self._standings[row], len(prefix)
        if standing.hasty:
            return False
        other = max(self.running, key=lambda each: self._common(row, each, prefix), default=None)
        if other is None or (common := self._common(row, other, prefix)) <= done:
            return False
        until = None
        if other.owner != row.owner:
            until = self._steps + 2 + 2 * -(-(common - done) * self.pages.size // self.limits.chunk)
        self._line.pull(row)
        self._standings[other].behind.append(_Behind(row, standing, common * self.pages.size, until))
        return True

    def _common(self, row: EngineRow[Adapter], other: EngineRow[Adapter], prefix: list[Node]) -> int:
        """How many pages another, who is at the same place, computes for both."""
        standing, page, size = self._standings[other], len(prefix), self.pages.size
        if standing.answers or not standing.shares or standing.chain[-1:] != prefix[-1:]:
            return 0
        most = min(row.length - 1, other.length) // size
        while page < most and (label := row.label(page, size)) is not None and label == other.label(page, size):
            page += 1
        return page

    def _wake(self, standing: _Standing, fed: int | None = None) -> None:
        """Who need not wait any more goes back to its place in the line."""
        staying = []
        for each in standing.behind:
            late = each.until is not None and each.until <= self._steps
            if fed is not None and each.fed > fed and not late:
                staying.append(each)
            elif self._standings.get(each.row) is each.standing:
                each.standing.hasty = late
                self._line.join(each.row, each.standing.place)
        standing.behind = staying

    def _fits(
        self, row: EngineRow[Adapter], prefix: list[Node], owed: int, going: Sequence[EngineRow[Adapter]] = ()
    ) -> bool:
        """Is there room for it, beside what is owed to those who stay?"""
        if len(self.running) - len(going) >= self.limits.rows:
            return False
        holders = Counter(page for each in going for page in each.pages)
        freed = {page for page, count in holders.items() if count == self.pages.holders(page)}
        held = sum(1 for node in prefix if self.pages.holders(node.page))
        gained = len(freed.difference(node.page for node in prefix))
        return self.pages.of(row.length + 1) - held + owed <= self.pages.left + gained

    def _owed(self, rows: Iterable[EngineRow[Adapter]]) -> int:
        """Pages for what these have yet to be fed, and one more for each, so that nobody has to give way at once."""
        return sum(max(0, self.pages.of(row.length + 1) - len(row.pages)) + 1 for row in rows)

    def _make_way(self, row: EngineRow[Adapter], prefix: list[Node]) -> bool:
        """Rows that have had their turn go back to the line, if that lets in one whose owner has nothing running."""
        if self._line.accounts[row.owner].running:
            return False
        turned = sorted(filter(self._had_its_turn, self.running), key=self._had)
        going: list[EngineRow[Adapter]] = []
        while not self._fits(row, prefix, self._owed(each for each in self.running if each not in going), going):
            if not turned:
                return False
            going.append(turned.pop())
        for each in going:
            self._give_way(each)
        return True

    def _had_its_turn(self, row: EngineRow[Adapter]) -> bool:
        began = self._standings[row].began
        return len(row.said) - began >= max(self.limits.turn, (len(row.prompt) + began) // AGAIN_SHARE)

    def _had(self, row: EngineRow[Adapter]) -> tuple[int, int]:
        """Who has least of this comes before all others: what its owner had, then its age."""
        return self._line.accounts[row.owner].had, self._standings[row].place

    def _seat(self, row: EngineRow[Adapter], prefix: list[Node]) -> None:
        standing = self._standings[row]
        standing.runs, standing.answers, standing.hasty, standing.shares = True, False, False, True
        standing.chain, standing.matched, standing.began = prefix, len(prefix), len(row.said)
        row.pages, row.fed = self.pages.share(prefix), len(prefix) * self.pages.size
        if not standing.times:
            row.cached = min(row.fed, len(row.prompt))
        standing.times += 1
        standing.reached = max(standing.reached, row.fed)
        standing.prepaid = row.length - min(row.length, standing.reached)
        standing.prepaid += min(self.limits.turn, row.limit - len(row.said))
        self._line.let_in(row, standing.prepaid)
        self.running.append(row)

    # Going back, and leaving

    def _give_way(self, row: EngineRow[Adapter]) -> None:
        self._stop(row, self._standings[row])
        self._line.join(row, self._standings[row].place)

    def _stop(self, row: EngineRow[Adapter], standing: _Standing) -> None:
        """Its full pages stay remembered while there is room, so that it, or another, finds them."""
        self.pages.give(row.pages)
        row.pages, row.fed, standing.chain, standing.runs = [], 0, [], False
        self._line.stopped(row, standing.prepaid)
        standing.prepaid = 0
        self.running.remove(row)
        self._wake(standing)

    def _forget(self, standing: _Standing) -> None:
        """What it wrote, and what its owner did; of what belongs to all only what it wrote itself."""
        for at, node in enumerate(standing.chain):
            if at >= standing.matched or (node.label is not None and node.label.sharer is not PUBLIC):
                self.pages.forget(node)
                return

    # One step

    def _batch(self) -> StepBatch[Adapter]:
        """Who has had least takes its pages first, so whoever gives way for it has none of this step yet."""
        counts, order = self._counts(), deque(sorted(self.running, key=self._had))
        batch: StepBatch[Adapter] = StepBatch([], [])
        while order:
            row = order.popleft()
            end = row.fed + counts[row]
            if counts[row] and self._grow(row, end, order, batch.fresh):
                batch.feeds.append(Feed(row, row.fed, counts[row], end == row.length))
        return batch

    def _counts(self) -> dict[EngineRow[Adapter], int]:
        """Each answer gets on by a token at least. Prompts come next, then whatever more is known of answers."""
        answers = [row for row in self.running if self._standings[row].answers]
        prompts = [row for row in self.running if not self._standings[row].answers]
        prompts.sort(key=lambda row: self._standings[row].place)
        room = self._step - len(answers)
        share = min(room, max(self.limits.chunk, len(answers))) if answers else room
        given = portions([(row.owner, row.unfed) for row in prompts], share)
        counts = dict(zip(prompts, given, strict=True))
        room -= sum(given)
        for row in answers:
            counts[row] = min(row.unfed, 1 + room)
            room -= max(0, counts[row] - 1)
        return counts

    def _grow(self, row: EngineRow[Adapter], end: int, later: deque[EngineRow[Adapter]], fresh: list[int]) -> bool:
        wanted = max(0, self.pages.of(end) - len(row.pages))
        while (taken := self.pages.take(wanted)) is None:
            if not later:
                self._give_way(row)
                return False
            self._give_way(later.pop())
        row.pages += taken
        fresh += taken
        return True

    def _pay(self, row: EngineRow[Adapter], standing: _Standing) -> None:
        """Computing again what it had said before it gave way costs its owner nothing."""
        new = max(0, row.fed - standing.reached)
        covered = min(new, standing.prepaid)
        standing.reached += new
        standing.prepaid -= covered
        self._line.computed(row, new, covered)

    def _remember(self, row: EngineRow[Adapter], standing: _Standing) -> None:
        chain = standing.chain
        while standing.shares and (len(chain) + 1) * self.pages.size <= row.fed:
            page, parent = len(chain), chain[-1] if chain else self.pages.root
            label = row.label(page, self.pages.size)
            node = label and self.pages.remember(parent, label, row.pages[page])
            if node:
                row.pages[page] = node.page
                chain.append(node)
            else:
                standing.shares = False
