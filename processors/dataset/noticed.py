"""What a build sees beside the rows: no part of them, nor of any hash. It tells a typo from a selection."""

from collections import Counter
from collections.abc import Iterator
from typing import NamedTuple

from processors.dataset.selection import Selection

SHOWN = 20
"""Names of agents that are remembered for whoever named one that is not there."""


class Noticed(NamedTuple):
    """Of one build."""

    left_out: dict[str, int]
    """Events of each entity that was left out."""
    taught_by: dict[str, int]
    """Answers and conversations of each agent that was selected, in the ranges."""
    agents: tuple[str, ...]
    """Some of those that are there."""
    unheard: int
    """Judgements that hit no answer of the dataset."""

    def nowhere(self) -> Iterator[tuple[str, str]]:
        """Names that a selection leaves out or narrows to and nothing in the ranges has, by the selection's member."""
        for member, counted in (("leave_out", self.left_out), ("agents", self.taught_by)):
            yield from ((member, name) for name, events in counted.items() if not events)


class Watch:
    """Counts what a selection names. Holds a name for each, and a few beside."""

    def __init__(self, select: Selection) -> None:
        self._left_out = Counter(dict.fromkeys(select.leave_out, 0))
        self._taught_by = Counter(dict.fromkeys(select.agents, 0))
        self._agents: set[str] = set()

    def leaves_out(self, entity: str | None) -> bool:
        if entity is None or entity not in self._left_out:
            return False
        self._left_out[entity] += 1
        return True

    def hears(self, agent: str) -> None:
        if agent in self._taught_by:
            self._taught_by[agent] += 1
        if len(self._agents) < SHOWN:
            self._agents.add(agent)

    def noticed(self, unheard: int) -> Noticed:
        return Noticed(dict(self._left_out), dict(self._taught_by), tuple(sorted(self._agents)), unheard)
