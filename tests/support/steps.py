"""A schedule at work without a model: what each page holds is written down, and every step is checked against it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

from gpu_workers.serve.schedule.pages import PAGE, PUBLIC
from gpu_workers.serve.schedule.rows import EngineRow, Feed, Limits, StepBatch
from gpu_workers.serve.schedule.schedule import Schedule

Row = EngineRow[str]
Words = Callable[[Row], int]


class Steps:
    """The KV of a token is all that it comes from: the tokens up to it, and which of them an adapter has read."""

    def __init__(self, limits: Limits, words: Words = lambda row: 0) -> None:
        self.schedule: Schedule[str] = Schedule(limits)
        self.limits = limits
        self.ended: list[Row] = []
        self.batches = 0
        self.computed: Counter[int] = Counter()
        """Tokens that went through the model, by ticket."""
        self.let_in: Counter[int] = Counter()
        self._words = words
        self._kv: list[list[int | None]] = [[None] * PAGE for _ in range(limits.pages)]
        self._writers: dict[int, Row] = {}
        self._known: dict[Row, list[int]] = {}
        self._seen: dict[Row, list[int]] = {}
        self._ran: set[Row] = set()

    def submit(self, *rows: Row) -> None:
        for row in rows:
            self.schedule.submit(row)

    def step(self) -> StepBatch[str] | None:
        """Each row of the batch that is asked says a token; who has said all leaves."""
        if (batch := self.schedule.next()) is None:
            return None
        self.batches += 1
        running = set(self.schedule.running)
        self.let_in.update(row.ticket for row in running - self._ran)
        self._ran = running
        self._follow(batch)
        self.schedule.fed(batch.feeds)
        self.check()
        for feed in batch.feeds:
            if feed.asks:
                feed.row.said.append(self._words(feed.row))
        done = [feed.row for feed in batch.feeds if len(feed.row.said) >= feed.row.limit]
        self.leave(*done)
        self.ended += done
        return batch

    def leave(self, *rows: Row, forget: bool = False) -> None:
        self.schedule.leave(rows, forget)
        self._ran -= set(rows)

    def run(self, most: int) -> list[Row]:
        """Rows in the order in which they end, of so many steps."""
        before = len(self.ended)
        for _ in range(most):
            if self.step() is None:
                break
        return self.ended[before:]

    def until(self, row: Row, most: int) -> int:
        """How many steps it takes from now on."""
        for step in range(1, most + 1):
            self.step()
            if row in self.ended:
                return step
        return most + 1

    def check(self) -> None:
        """Pages are free, remembered or held, and held by those who have them."""
        pages, running = self.schedule.pages, self.schedule.running
        held = Counter(page for row in running for page in row.pages)
        assert 0 not in held and len(held) + pages.left == pages.usable
        assert all(pages.holders(page) == count for page, count in held.items())
        assert sum(held.values()) == sum(len(set(row.pages)) for row in running)
        assert len(running) <= self.limits.rows

    def _follow(self, batch: StepBatch[str]) -> None:
        assert batch.feeds and len({feed.row for feed in batch.feeds}) == len(batch.feeds)
        for page in batch.fresh:
            self._kv[page] = [None] * PAGE
            self._writers.pop(page, None)
        for feed in batch.feeds:
            self._read(feed)
        for feed in batch.feeds:
            self._write(feed)

    def _read(self, feed: Feed[str]) -> None:
        """All that is before it is what it would have computed itself, and nothing of others is behind it."""
        row = feed.row
        assert row in self.schedule.running and feed.start == row.fed and feed.count > 0
        assert feed.start >= row.active_from or feed.start + feed.count <= row.active_from
        assert feed.asks == (feed.start + feed.count == row.length)
        assert PAGE * len(row.pages) - PAGE < feed.start + feed.count <= PAGE * len(row.pages)
        for place in range(self._unchanged(row), len(row.pages)):
            self._read_page(feed, place)
        self._seen[row] = list(row.pages)

    def _unchanged(self, row: Row) -> int:
        """So many pages were read before, and are full, so nobody writes to them: `_write` sees to that."""
        seen = self._seen.get(row, [])
        same = next((at for at, (old, new) in enumerate(zip(seen, row.pages, strict=False)) if old != new), len(seen))
        return min(same, row.fed // PAGE)

    def _read_page(self, feed: Feed[str], place: int) -> None:
        row, page, first = feed.row, feed.row.pages[place], place * PAGE
        known = self._kv_of(row, min(feed.start, first + PAGE))[first:]
        assert self._kv[page] == known + [None] * (PAGE - len(known))
        writer = self._writers.get(page, row)
        label = row.label(place, PAGE) if first + PAGE <= row.length else None
        assert writer.owner == row.owner or (label and label.sharer is PUBLIC and first + PAGE <= row.public)

    def _write(self, feed: Feed[str]) -> None:
        self.computed[feed.row.ticket] += feed.count
        known = self._kv_of(feed.row, feed.start + feed.count)
        for at in range(feed.start, feed.start + feed.count):
            page = feed.row.pages[at // PAGE]
            assert self.schedule.pages.holders(page) == 1
            self._kv[page][at % PAGE] = known[at]
            self._writers[page] = feed.row

    def _kv_of(self, row: Row, end: int) -> list[int]:
        known = self._known.setdefault(row, [])
        for at in range(len(known), end):
            under = (row.mark or row.adapter) if at >= row.active_from else None
            known.append(hash((known[-1] if known else 0, *row.tokens(at, 1), under)))
        return known[:end]


def asked(ticket: int, prompt: int | list[int], limit: int, **more: Any) -> Row:
    """Prompts of a bare length begin differently, so that nothing of them is shared."""
    tokens = [1_000 + ticket] * prompt if isinstance(prompt, int) else prompt
    return EngineRow(ticket, tokens, more.pop("adapter", None), limit, **more)
