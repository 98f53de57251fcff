"""What the schedule knows of a row from the day it comes until it leaves."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, NamedTuple

from gpu_workers.serve.schedule.pages import Label, Node, Pages
from gpu_workers.serve.schedule.rows import EngineRow


@dataclass(eq=False, slots=True)
class RowStanding:
    row: EngineRow[Any]
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
    """Its full pages, as far as others find them; while it waits, those that were there when it was last looked at."""
    shares: bool = True
    behind: list[Behind] = field(default_factory=list)
    _labels: list[Label | None] = field(default_factory=list)

    def label(self, page: int, size: int) -> Label | None:
        """Each is computed once: as long as a row is here, what a full page of it holds does not change."""
        while len(self._labels) <= page:
            self._labels.append(self.row.label(len(self._labels), size))
        return self._labels[page]

    def look(self, pages: Pages) -> int:
        """Finds what is there of it by now, and says how many more pages that is.

        Without its last token: that one is always fed, for what the model says to it.
        """
        most = (self.row.length - 1) // pages.size
        del self.chain[most:]
        while self.chain and self.chain[-1].gone:
            self.chain.pop()
        known = len(self.chain)
        labels = (self.label(page, pages.size) for page in range(known, most))
        self.chain += pages.find(labels, self.chain[-1] if self.chain else None)
        return len(self.chain) - known

    def computes(self, other: RowStanding, size: int) -> bool:
        """Is this one, which runs, at the very page that the other needs next?"""
        page = len(other.chain)
        end = (page + 1) * size
        if self.answers or not self.shares or self.chain[-1:] != other.chain[-1:]:
            return False
        if end >= other.row.length or end > self.row.length or (label := other.label(page, size)) is None:
            return False
        return self.label(page, size) == label

    def common(self, other: RowStanding, size: int) -> int:
        """How many pages this one, which computes the other's next, has in common with it. Both keep one label."""
        page, most = len(other.chain), min(other.row.length - 1, self.row.length) // size
        while page < most and (label := self.label(page, size)) is not None and label == other.label(page, size):
            other._labels[page] = label
            page += 1
        return page


class Behind(NamedTuple):
    """A row that waits for what a running one computes for both."""

    standing: RowStanding
    pages: int
    until: int | None
