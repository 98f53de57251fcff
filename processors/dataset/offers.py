"""The tools that a company offered when a record was written."""

from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Sequence
from hashlib import blake2b
from secrets import token_bytes
from typing import NamedTuple

from processors.dataset.marks import HELD, TakenAt
from processors.gate import snapshot
from schemas.company import ToolRegistered, ToolRevoked

Change = ToolRegistered | ToolRevoked
Moment = tuple[int, ...]
"""Of each partition, so many changes came before."""


class _Tool(NamedTuple):
    """As a job would carry it. Read once: when it was registered."""

    text: str
    size: int
    mark: int


class _Change(NamedTuple):
    """`tool`: None where none is on offer from here on. `before`: the change of the same name before it, if any."""

    name: str
    tool: _Tool | None
    before: int | None


class _Part:
    """Of one partition, in its order. `since` never falls, whatever clocks said."""

    def __init__(self) -> None:
        self.offsets: list[int] = []
        self.since: list[int] = []
        self.changes: list[_Change] = []
        self._last: dict[str, int] = {}

    def take(self, name: str, tool: _Tool | None, place: TakenAt) -> None:
        self.offsets.append(place.offset)
        self.since.append(max(place.timestamp, self.since[-1] if self.since else 0))
        self.changes.append(_Change(name, tool, self._last.get(name)))
        self._last[name] = len(self.changes) - 1


class Offers:
    """Within a partition by offset; between partitions, which have no common order, by the log's own time."""

    def __init__(self) -> None:
        self.size = 0
        self._parts: dict[int, _Part] = {}
        # Two offers are one where their marks are: nobody can have chosen what they are.
        self._secret = token_bytes(32)

    def take(self, event: Change, place: TakenAt) -> None:
        tool = self._tool(snapshot([(event, "")])[1:-1]) if isinstance(event, ToolRegistered) else None
        self._parts.setdefault(place.partition, _Part()).take(event.name, tool, place)
        self.size += HELD + len(event.name) + (tool.size if tool else 0)

    def moment(self, place: TakenAt) -> Moment:
        return tuple(self._before(partition, place) for partition in sorted(self._parts))

    def standing(self) -> "OnOffer":
        return OnOffer([self._parts[partition] for partition in sorted(self._parts)])

    def _tool(self, text: str) -> _Tool | None:
        """None: it can never be called."""
        mark = blake2b(written := text.encode(), key=self._secret, digest_size=32)
        return _Tool(text, len(written), int.from_bytes(mark.digest())) if text else None

    def _before(self, partition: int, place: TakenAt) -> int:
        part = self._parts[partition]
        if partition == place.partition and place.topic == "company-data":
            return bisect_left(part.offsets, place.offset)
        return bisect_right(part.since, place.timestamp)


class OnOffer:
    """What is on offer at one moment. It goes from one to the next change by change: in their order, each is looked at
    once."""

    def __init__(self, parts: Sequence[_Part]) -> None:
        self._parts = parts
        self._at = [0] * len(parts)
        self._last: dict[str, dict[int, int]] = {}
        self._offered: dict[str, _Tool] = {}
        self.mark = self._size = 0

    @property
    def size(self) -> int:
        """Of `text`, in bytes."""
        return self._size + len(self._offered) + 1 if self._offered else 0

    def go_to(self, moment: Moment) -> Iterator[None]:
        """Yields after each change."""
        for which, count in enumerate(moment):
            changes = self._parts[which].changes
            while self._at[which] < count:
                self._stands(changes[self._at[which]].name, which, self._at[which])
                self._at[which] += 1
                yield
            while self._at[which] > count:
                self._at[which] -= 1
                undone = changes[self._at[which]]
                self._stands(undone.name, which, undone.before)
                yield

    def text(self) -> str:
        """As a job would carry them, less their places in the log. Nothing where there are none."""
        names = sorted(self._offered)
        return f"[{','.join(self._offered[name].text for name in names)}]" if names else ""

    def _stands(self, name: str, which: int, change: int | None) -> None:
        last = self._last.setdefault(name, {})
        if change is None:
            del last[which]
        else:
            last[which] = change
        self._offer(name, self._newest(last) if last else None)

    def _newest(self, last: dict[int, int]) -> _Tool | None:
        which = max(last, key=lambda each: (self._parts[each].since[last[each]], each))
        return self._parts[which].changes[last[which]].tool

    def _offer(self, name: str, tool: _Tool | None) -> None:
        if (before := self._offered.pop(name, None)) is not None:
            self.mark ^= before.mark
            self._size -= before.size
        if tool is not None:
            self._offered[name] = tool
            self.mark ^= tool.mark
            self._size += tool.size
