"""Who runs next. Plain data and plain rules: no tensor is seen here."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Generic, NamedTuple, TypeVar

Adapter = TypeVar("Adapter")


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
    """KV of `length` positions goes from one slot to another."""

    source: int
    target: int
    length: int


@dataclass(frozen=True)
class Limits:
    """`cells` bounds slots x longest row, which is what the KV cache holds; `prefill` the tokens of one prompt step."""

    rows: int = 32
    cells: int = 65_536
    prefill: int = 4_096
    waiting: int = 1_024


class Schedule(Generic[Adapter]):
    """First come, first served; prompts go before answers, so a newcomer joins the batch at the next step."""

    def __init__(self, limits: Limits) -> None:
        self.limits = limits
        self.waiting: deque[Row[Adapter]] = deque()
        self.running: list[Row[Adapter]] = []
        """A row's place in this list is its KV slot."""

    def next(self) -> Batch[Adapter] | None:
        first = len(self.running)
        fresh = self._admitted()
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
                    moves.append(Move(len(self.running), slot, last.length))
                    self.running[slot] = last
        return moves

    def _admitted(self) -> list[Row[Adapter]]:
        fresh: list[Row[Adapter]] = []
        reach, tokens = self.reach(), 0
        while self.waiting and len(self.running) + len(fresh) < self.limits.rows:
            row = self.waiting[0]
            reach, tokens = max(reach, row.final_length), tokens + len(row.prompt)
            rows = len(self.running) + len(fresh) + 1
            if (rows > 1 and rows * reach > self.limits.cells) or (fresh and tokens > self.limits.prefill):
                break
            fresh.append(self.waiting.popleft())
        return fresh
