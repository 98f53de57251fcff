"""Who runs next. Plain data and plain rules: no tensor is seen here."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import Generic, NamedTuple, TypeVar

from gpu_workers.refused import TooLong

Adapter = TypeVar("Adapter")
LONG_SHARE = 2
"""One in so many cells, and rows, is for long rows."""
AGAIN_SHARE = 16
"""Who gives way is computed again later: so many tokens of that, at most, for each one that it said in its turn."""


@dataclass(eq=False)
class EngineRow(Generic[Adapter]):
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
    began: int = 0
    """How much it had said when it was let in."""

    @property
    def length(self) -> int:
        return len(self.prompt) + len(self.said)

    @property
    def final_length(self) -> int:
        return len(self.prompt) + self.limit

    def had_its_turn(self, turn: int) -> bool:
        return len(self.said) - self.began >= max(turn, (len(self.prompt) + self.began) // AGAIN_SHARE)


class Move(NamedTuple):
    """The KV of one slot goes to another."""

    source: int
    target: int


class SlotBatch(NamedTuple, Generic[Adapter]):
    """Rows with their KV slots. A prefill batch is rows just let in, a decode batch all running ones."""

    prefill: bool
    rows: list[tuple[int, EngineRow[Adapter]]]
    moves: list[Move]
    """To be made first: rows have given way."""


@dataclass(frozen=True)
class Limits:
    """`cells` bounds slots x longest row, which is what the KV cache holds; `prefill` the tokens of one prompt step,
    padding included; after `turn` tokens, or more where it is long, a row gives way to other owners'."""

    rows: int = 32
    cells: int = 65_536
    prefill: int = 4_096
    waiting: int = 1_024
    turn: int = 256

    def halves(self) -> tuple[Limits, Limits]:
        """For short rows and for long ones: a slot is as long as the longest row, so they do not share a cache."""
        cells, rows = self.cells // LONG_SHARE, max(1, self.rows // LONG_SHARE)
        return replace(self, cells=self.cells - cells), replace(self, cells=cells, rows=rows)


class Schedule(Generic[Adapter]):
    """Owners take turns, each first come, first served. Prompts and answers take turns too, so neither waits for ever.

    Nobody is overtaken for being too long for the room that is left: the others end, or have had their turn and go back
    to the line for an owner who has nothing running, and then there is room.
    """

    def __init__(self, limits: Limits) -> None:
        self.limits = limits
        self.waiting: deque[EngineRow[Adapter]] = deque()
        self.running: list[EngineRow[Adapter]] = []
        """A row's place in this list is its KV slot."""
        self._answers_next = False

    def submit(self, row: EngineRow[Adapter]) -> None:
        if row.final_length > self.limits.cells:
            raise TooLong(f"{row.final_length} tokens of prompt and answer; one row may have {self.limits.cells} here.")
        self.waiting.append(row)

    def next(self) -> SlotBatch[Adapter] | None:
        answers = self._answers_next and bool(self.running)
        moves = [] if answers else self._give_way()
        first = len(self.running)
        fresh = [] if answers else self._admitted()
        self._answers_next = bool(fresh)
        if fresh:
            self.running += fresh
            return SlotBatch(True, list(enumerate(fresh, first)), moves)
        return SlotBatch(False, list(enumerate(self.running)), moves) if self.running else None

    def leave(self, rows: Iterable[EngineRow[Adapter]]) -> list[Move]:
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

    def _give_way(self) -> list[Move]:
        """Rows that have had their turn go back to the line, if that lets its first row in."""
        running = Counter(row.owner for row in self.running)
        if not self.waiting or running[(first := self._first(running)).owner]:
            return []
        staying = sorted(self.running, key=lambda row: (row.had_its_turn(self.limits.turn), row.final_length))
        going: list[EngineRow[Adapter]] = []
        while not self._fits([*staying, first]):
            if not staying or not staying[-1].had_its_turn(self.limits.turn):
                return []
            going.append(staying.pop())
        moves = self.leave(going)
        self.waiting.extendleft(sorted(going, key=lambda row: row.ticket, reverse=True))
        self._go_last({row.owner for row in going})
        return moves

    def _admitted(self) -> list[EngineRow[Adapter]]:
        fresh: list[EngineRow[Adapter]] = []
        running = Counter(row.owner for row in self.running)
        longest = 0
        while self.waiting:
            row = self._first(running)
            longest = max(longest, row.length)
            padded = (len(fresh) + 1) * longest if fresh else 0
            if padded > self.limits.prefill or not self._fits([*self.running, *fresh, row]):
                break
            self.waiting.remove(row)
            self._go_last({row.owner})
            running[row.owner] += 1
            row.began = len(row.said)
            fresh.append(row)
        return fresh

    def _first(self, running: Counter[str | None]) -> EngineRow[Adapter]:
        """In the line, the first of those whose owner has least running."""
        return min(self.waiting, key=lambda row: running[row.owner])

    def _fits(self, rows: list[EngineRow[Adapter]]) -> bool:
        return len(rows) <= self.limits.rows and len(rows) * max(row.final_length for row in rows) <= self.limits.cells

    def _go_last(self, owners: set[str | None]) -> None:
        """Who had a turn stands behind everybody else, with all of its rows: a flood is one turn, not one for each."""
        self.waiting = deque(sorted(self.waiting, key=lambda row: row.owner in owners))
