"""What a build sees beside the rows: no part of them, nor of any hash. It tells a typo from a selection."""

from collections import Counter
from collections.abc import Iterator
from typing import NamedTuple

from processors.dataset.selection import Selection

SHOWN = 20
"""Names of agents that are remembered for whoever named one that is not there."""

NARROWING = ("agents", "types", "origins", "entities", "held_out")
"""Members of a selection that name what is to be there."""


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
    missing: tuple[tuple[str, str], ...]
    """The selection's member, and a name to which it narrows and that no answer or conversation in the ranges has."""
    failures: tuple[str, ...] = ()
    """A line for each rule of an application that could not take some events."""

    def nowhere(self) -> Iterator[tuple[str, str]]:
        """Names that a selection leaves out or narrows to and nothing in the ranges has, by the selection's member."""
        yield from (("leave_out", name) for name, events in self.left_out.items() if not events)
        yield from self.missing


class Watch:
    """Counts what a selection names. Holds a name for each, and a few beside."""

    def __init__(self, select: Selection) -> None:
        self._left_out = Counter(dict.fromkeys(select.leave_out, 0))
        members = {member: getattr(select, member) for member in NARROWING}
        self._narrowed = Counter({(member, name): 0 for member, names in members.items() for name in names})
        self._agents: set[str] = set()

    def leaves_out(self, entity: str | None) -> bool:
        if entity is None or entity not in self._left_out:
            return False
        self._left_out[entity] += 1
        return True

    def hears(self, agent: str, type_: str, origin: str) -> None:
        self._meets("agents", agent)
        self._meets("types", type_)
        self._meets("origins", origin)
        if len(self._agents) < SHOWN:
            self._agents.add(agent)

    def hears_of(self, entity: str | None) -> None:
        """Also what is left out: that a file is both named and left out is no slip."""
        if entity is not None:
            self._meets("entities", entity)
            self._meets("held_out", entity)

    def _meets(self, member: str, name: str) -> None:
        if (member, name) in self._narrowed:
            self._narrowed[member, name] += 1

    def noticed(self, unheard: int) -> Noticed:
        taught_by = {name: events for (member, name), events in self._narrowed.items() if member == "agents"}
        missing = tuple(each for each, events in self._narrowed.items() if not events)
        return Noticed(dict(self._left_out), taught_by, tuple(sorted(self._agents)), unheard, missing)
