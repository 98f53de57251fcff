"""The tools that a company offered when a record was written."""

from bisect import bisect_left, bisect_right
from collections.abc import Mapping
from heapq import merge
from itertools import chain
from typing import NamedTuple

from processors.dataset.marks import HELD, TakenAt
from processors.gate import snapshot
from schemas.company import ToolRegistered, ToolRevoked

Change = ToolRegistered | ToolRevoked


class _Changes(NamedTuple):
    """Of one partition, in its order. `since` never falls, whatever clocks said."""

    offsets: list[int]
    since: list[int]
    events: list[Change]


class Offers:
    """Within a partition by offset; between partitions, which have no common order, by the log's own time."""

    def __init__(self) -> None:
        self.size = 0
        self._parts: dict[int, _Changes] = {}
        self._texts: dict[tuple[int, ...], str | None] = {}

    def take(self, event: Change, place: TakenAt) -> None:
        part = self._parts.setdefault(place.partition, _Changes([], [], []))
        part.offsets.append(place.offset)
        part.since.append(max(place.timestamp, part.since[-1] if part.since else 0))
        part.events.append(event)
        self.size += HELD + (len(event.parameters) + len(event.description) if isinstance(event, ToolRegistered) else 0)

    def at(self, place: TakenAt) -> str | None:
        """As a job would carry them, less their places in the log; None where there were none."""
        counts = tuple(self._before(partition, place) for partition in sorted(self._parts))
        if counts not in self._texts:
            text = _snapshot(self._standing(counts))
            self.size += HELD + len(text or "")
            self._texts[counts] = text
        return self._texts[counts]

    def _before(self, partition: int, place: TakenAt) -> int:
        part = self._parts[partition]
        if partition == place.partition and place.topic == "company-data":
            return bisect_left(part.offsets, place.offset)
        return bisect_right(part.since, place.timestamp)

    def _standing(self, counts: tuple[int, ...]) -> Mapping[str, ToolRegistered]:
        parts = zip(sorted(self._parts), counts, strict=True)
        each = [list(zip(self._parts[p].since[:n], self._parts[p].events[:n], strict=True)) for p, n in parts]
        standing: dict[str, ToolRegistered] = {}
        for _, event in merge(*each, key=lambda dated: dated[0]) if len(each) > 1 else chain(*each):
            if isinstance(event, ToolRegistered):
                standing[event.name] = event
            else:
                standing.pop(event.name, None)
        return standing


def _snapshot(standing: Mapping[str, ToolRegistered]) -> str | None:
    text = snapshot((tool, "") for tool in standing.values())
    return None if text == "[]" else text
