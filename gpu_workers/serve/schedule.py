"""Who runs next. Plain data and plain rules: no tensor is seen here."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import Generic, NamedTuple, TypeVar

from gpu_workers.serve.errors import TooLong

Adapter = TypeVar("Adapter")
LONG_SHARE = 2
"""One in so many cells, and rows, is for long rows."""


@dataclass(eq=False)
class Row(Generic[Adapter]):
    """One question on its way through the engine. Its adapter is fixed when it is taken in."""

    ticket: int
    prompt: list[int]
    adapter: Adapter | None
    limit: int
    temperature: float = 0.0
    top_p: float = 1.0
    seed: int = 0
    owner: str | None = None
    """Whose question it is: owners take turns."""
    said: list[int] = field(default_factory=list)

    @property
    def length(self) -> int:
        return len(self.prompt) + len(self.said)

    @property
    def final_length(self) -> int:
        return len(self.prompt) + self.limit


class Batch(NamedTuple, Generic[Adapter]):
    """Rows with their KV slots. A prefill batch is new rows only, a decode batch all running ones."""

    prefill: bool
    rows: list[tuple[int, Row[Adapter]]]


class Move(NamedTuple):
    """The KV of one slot goes to another."""

    source: int
    target: int


@dataclass(frozen=True)
class Limits:
    """`cells` bounds slots x longest row, which is what the KV cache holds; `prefill` the tokens of one prompt step,
    padding included."""

    rows: int = 32
    cells: int = 65_536
    prefill: int = 4_096
    waiting: int = 1_024

    def halves(self) -> tuple[Limits, Limits]:
        """For short rows and for long ones: a slot is as long as the longest row, so they do not share a cache."""
        cells, rows = self.cells // LONG_SHARE, max(1, self.rows // LONG_SHARE)
        return replace(self, cells=self.cells - cells), replace(self, cells=cells, rows=rows)


class Schedule(Generic[Adapter]):
    """Owners take turns, each first come, first served. Prompts and answers take turns too, so neither waits for ever.

    Nobody is overtaken for being too long for the room that is left: the others end, and then there is room.
    """

    def __init__(self, limits: Limits) -> None:
        self.limits = limits
        self.waiting: deque[Row[Adapter]] = deque()
        self.running: list[Row[Adapter]] = []
        """A row's place in this list is its KV slot."""
        self._answers_next = False

    def submit(self, row: Row[Adapter]) -> None:
        if row.final_length > self.limits.cells:
            raise TooLong(f"{row.final_length} tokens of prompt and answer; one row may have {self.limits.cells} here.")
        self.waiting.append(row)

    def next(self) -> Batch[Adapter] | None:
        first = len(self.running)
        fresh = [] if self._answers_next and self.running else self._admitted()
        self._answers_next = bool(fresh)
        if fresh:
            self.running += fresh
            return Batch(True, list(enumerate(fresh, first)))
        return Batch(False, list(enumerate(self.running))) if self.running else None

    def reach(self) -> int:
        """Positions that the KV cache may have to hold before every running row has ended."""
        return max((row.final_length for row in self.running), default=0)

    def leave(self, rows: Iterable[Row[Adapter]]) -> list[Move]:
        """Rows leave wherever they are. The last slots fill the holes: slots stay dense."""
        gone = set(rows)
        self.waiting = deque(row for row in self.waiting if row not in gone)
        moves = []
        for slot in reversed(range(len(self.running))):
            if self.running[slot] in gone:
                last = self.running.pop()
                if slot < len(self.running):
                    moves.append(Move(len(self.running), slot))
                    self.running[slot] = last
        return moves

    def _admitted(self) -> list[Row[Adapter]]:
        fresh: list[Row[Adapter]] = []
        running = Counter(row.owner for row in self.running)
        reach, longest = self.reach(), 0
        while self.waiting and len(self.running) + len(fresh) < self.limits.rows:
            row = min(self.waiting, key=lambda row: running[row.owner])  # the first of those who have least
            reach, longest = max(reach, row.final_length), max(longest, len(row.prompt))
            rows = len(self.running) + len(fresh) + 1
            if rows * reach > self.limits.cells or (fresh and (len(fresh) + 1) * longest > self.limits.prefill):
                break
            self.waiting.remove(row)
            running[row.owner] += 1
            fresh.append(row)
        return fresh
