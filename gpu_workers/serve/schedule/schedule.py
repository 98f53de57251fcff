"""What goes through the model next. Plain data and plain rules: no tensor is seen here."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Iterable, Sequence
from typing import Generic

from gpu_workers.refused import TooLong
from gpu_workers.serve.schedule.line import Line
from gpu_workers.serve.schedule.pages import PUBLIC, Pages
from gpu_workers.serve.schedule.portions import portions
from gpu_workers.serve.schedule.rows import Adapter, EngineRow, Feed, Limits, StepBatch
from gpu_workers.serve.schedule.standing import Behind, RowStanding

AGAIN_SHARE = 16
"""Who gives way is computed again later: so many tokens of that, at most, for each one that it said in its turn."""
LOOKS = 1_024
"""So many pages of waiting rows are looked at in one step, and one row's more: others wait for the step meanwhile."""


class Schedule(Generic[Adapter]):
    """Owners take turns, each first come, first served. Answers get on in every step, and prompts share what is left.

    Nobody is overtaken for being too long for the room that is left: the others end, or go back to the line for one
    who has nothing running, and then there is room. An owner's oldest row does so after its turn, the rest at once.

    Pages are taken as rows grow. When none is left, the newest row of the owner who had most gives way; the oldest of
    who had least never does, and would fit alone, so something always gets on.
    """

    def __init__(self, limits: Limits) -> None:
        self.limits = limits
        self.pages = Pages(limits.pages)
        self.running: list[EngineRow[Adapter]] = []
        self._step = max(limits.step, 2 * limits.rows)
        self._line: Line[EngineRow[Adapter]] = Line()
        self._standings: dict[EngineRow[Adapter], RowStanding] = {}
        self._came = 0
        self._steps = 0
        self._looked = 0

    @property
    def waiting(self) -> list[EngineRow[Adapter]]:
        return [row for row, standing in self._standings.items() if not standing.runs]

    def submit(self, row: EngineRow[Adapter]) -> None:
        if self.pages.of(row.final_length) > self.pages.usable:
            most = self.pages.usable * self.pages.size
            raise TooLong(f"{row.final_length} tokens of prompt and answer; one row may have {most} here.")
        self._came += 1
        self._standings[row] = RowStanding(row, self._came)
        self._line.opened(row.owner)
        self._line.join(row, self._came)

    def next(self) -> StepBatch[Adapter] | None:
        """None: nobody is there."""
        self._steps += 1
        self._looked = 0
        for row in self.running:
            self._wake(self._standings[row])
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
        while self._may_change() and (row := self._first()) is not None:
            if not self._fits(row, owed):
                if not self._make_way(row):
                    return
                owed = self._owed(self.running)
            self._seat(row)
            owed += self._owed([row])

    def _may_change(self) -> bool:
        return len(self.running) < self.limits.rows or (self._line.idle and bool(self._may_go()))

    def _first(self) -> EngineRow[Adapter] | None:
        """The first in the line. Who waits for a running row is overtaken."""
        while self._looked < LOOKS and (row := self._line.first()) is not None:
            if not self._waits(self._standings[row]):
                return row
        return None

    def _waits(self, standing: RowStanding) -> bool:
        """Is its next page being computed right now? Then it waits for all that the two have in common.

        For another owner's row, which may have to wait itself, only as long as that should take.
        """
        size = self.pages.size
        self._looked += 1 + standing.look(self.pages)
        if standing.hasty:
            return False
        other = next((each for each in map(self._of, self.running) if each.computes(standing, size)), None)
        if other is None:
            return False
        common = other.common(standing, size)
        new, until = common - len(standing.chain), None
        self._looked += new
        if other.row.owner != standing.row.owner:
            until = self._steps + 2 + 2 * -(-new * size // self.limits.chunk)
        self._line.pull(standing.row)
        other.behind.append(Behind(standing, common, until))
        return True

    def _of(self, row: EngineRow[Adapter]) -> RowStanding:
        return self._standings[row]

    def _wake(self, standing: RowStanding) -> None:
        """Who need not wait any more goes back to its place in the line, and knows what was computed for it."""
        staying = []
        for each in standing.behind:
            late = each.until is not None and each.until <= self._steps
            if standing.runs and each.pages * self.pages.size > standing.row.fed and not late:
                staying.append(each)
            elif self._standings.get(each.standing.row) is each.standing:
                each.standing.hasty = late
                each.standing.chain = standing.chain[: each.pages]
                self._line.join(each.standing.row, each.standing.place)
        standing.behind = staying

    def _fits(self, row: EngineRow[Adapter], owed: int, going: Sequence[EngineRow[Adapter]] = ()) -> bool:
        """Is there room for it, beside what is owed to those who stay?"""
        if len(self.running) - len(going) >= self.limits.rows:
            return False
        prefix = [node.page for node in self._standings[row].chain]
        holders = Counter(page for each in going for page in each.pages)
        freed = {page for page, count in holders.items() if count == self.pages.holders(page)}
        held = sum(1 for page in prefix if self.pages.holders(page))
        gained = len(freed.difference(prefix))
        return self.pages.of(row.length + 1) - held + owed <= self.pages.left + gained

    def _owed(self, rows: Iterable[EngineRow[Adapter]]) -> int:
        """Pages for what these have yet to be fed, and one more for each, so that nobody has to give way at once."""
        return sum(max(0, self.pages.of(row.length + 1) - len(row.pages)) + 1 for row in rows)

    def _make_way(self, row: EngineRow[Adapter]) -> bool:
        """Rows go back to the line, if that lets in one whose owner has nothing running."""
        if self._line.accounts[row.owner].running:
            return False
        going = self._may_go()
        if not self._fits(row, self._owed(each for each in self.running if each not in going), going):
            return False
        while not self._fits(row, self._owed(self.running)):
            self._give_way(going.pop())
        return True

    def _may_go(self) -> list[EngineRow[Adapter]]:
        """Who gives way for such an owner, the last one first: those who have had their turn; then what owners run
        beside their oldest row, which alone has a right to its turn: of who runs most, the newest."""
        ranks: Counter[str | None] = Counter()
        order: dict[EngineRow[Adapter], tuple[int, ...]] = {}
        for row in sorted(self.running, key=lambda row: self._standings[row].place):
            if self._had_its_turn(row):
                order[row] = (1, 0, *self._had(row))
            elif ranks[row.owner]:
                order[row] = (0, ranks[row.owner], *self._had(row))
            ranks[row.owner] += 1
        return sorted(order, key=order.__getitem__)

    def _had_its_turn(self, row: EngineRow[Adapter]) -> bool:
        began = self._standings[row].began
        return len(row.said) - began >= max(self.limits.turn, (len(row.prompt) + began) // AGAIN_SHARE)

    def _had(self, row: EngineRow[Adapter]) -> tuple[int, int]:
        """Who has least of this comes before all others: what its owner had, then its age."""
        return self._line.accounts[row.owner].had, self._standings[row].place

    def _seat(self, row: EngineRow[Adapter]) -> None:
        standing = self._standings[row]
        standing.runs, standing.answers, standing.hasty, standing.shares = True, False, False, True
        standing.began = len(row.said)
        row.pages, row.fed = self.pages.share(standing.chain), len(standing.chain) * self.pages.size
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

    def _stop(self, row: EngineRow[Adapter], standing: RowStanding) -> None:
        """Its full pages stay remembered while there is room, so that it, or another, finds them."""
        self.pages.give(row.pages)
        row.pages, row.fed, standing.runs = [], 0, False
        self._line.stopped(row, standing.prepaid)
        standing.prepaid = 0
        self.running.remove(row)
        self._wake(standing)

    def _forget(self, standing: RowStanding) -> None:
        """What its owner's rows alone read. All of it was finite when it was written, so what belongs to all stays."""
        own = (node for node in standing.chain if node.label is not None and node.label.sharer is not PUBLIC)
        if (first := next(own, None)) is not None:
            self.pages.forget(first)

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
        """Each answer gets on by a token at least. Prompts, and what more is known of answers, share what is left:
        little, while somebody waits for its next token."""
        counts = {row: int(self._standings[row].answers) for row in self.running}
        rows = sorted((row for row in counts if row.unfed > counts[row]), key=lambda row: self._standings[row].place)
        answers = sum(counts.values())
        room = self._step - answers
        if any(counts[row] and row.unfed <= self.limits.chunk for row in counts):
            room = min(room, max(self.limits.chunk, answers))
        for row, more in zip(
            rows, portions([(row.owner, row.unfed - counts[row]) for row in rows], room, self._steps), strict=True
        ):
            counts[row] += more
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

    def _pay(self, row: EngineRow[Adapter], standing: RowStanding) -> None:
        """Computing again what it had said before it gave way costs its owner nothing."""
        new = max(0, row.fed - standing.reached)
        covered = min(new, standing.prepaid)
        standing.reached += new
        standing.prepaid -= covered
        self._line.computed(row, new, covered)

    def _remember(self, row: EngineRow[Adapter], standing: RowStanding) -> None:
        chain = standing.chain
        while standing.shares and (len(chain) + 1) * self.pages.size <= row.fed:
            page, parent = len(chain), chain[-1] if chain else self.pages.root
            label = standing.label(page, self.pages.size)
            node = label and self.pages.remember(parent, label, row.pages[page])
            if node:
                row.pages[page] = node.page
                chain.append(node)
            else:
                standing.shares = False
