"""Who owned a changelog partition when, by its claims; and who may still have been at work after another took over.

An owner that takes over looks into the log before it says anything: what stands there it does not say again. So a
letter or an effect stands there twice only where somebody who was shut out alive still had it in hand, or where a
broker died before it had acknowledged it: no marker passes a record before that.
"""

from __future__ import annotations

import json
from bisect import bisect_right
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import NamedTuple

from streams.log.port import Record
from streams.state.changelog import CLAIM, marker_of
from tests.kill.injected import Place
from tests.kill.lives import Life

Cause = tuple[str, int, int]
"""Topic, partition, offset."""
SENT = 35.0
"""Seconds: so long before a broker's death somebody may have sent what it has not acknowledged."""
AGAIN = 120.0
"""Seconds: within so many after a broker's death it is sent again."""


class Turn(NamedTuple):
    """From one claim of a changelog partition to that of another owner, of the same changelog or of another version."""

    owner: str
    claimed: float
    shut_out: float
    folded: int
    """Of the source, by the changelog that was claimed: what was in hand lies behind."""


class Ownership:
    """Of one changelog partition: claims, and how far each source was folded when."""

    def __init__(self, history: Iterable[Record]) -> None:
        self.claims: list[tuple[float, str]] = []
        self._folded: dict[str, list[tuple[float, int]]] = defaultdict(list)
        for record in history:
            key, at = record.key or b"", record.timestamp / 1000
            if key == CLAIM:
                self.claims.append((at, json.loads(record.value or b"")["owner"]))
            elif (marker := marker_of(key, record.value)) is not None:
                self._folded[marker.topic].append((at, marker.next))

    def folded(self, topic: str, at: float) -> int:
        known = self._folded.get(topic, [])
        found = bisect_right(known, (at, 1 << 62))
        return known[found - 1][1] if found else 0


class Owners:
    """Of all changelog partitions."""

    def __init__(
        self, lives: Mapping[str, Life], deaths: Sequence[float], history: Callable[[str, int], Iterable[Record]]
    ) -> None:
        """`lives` by name; `deaths` of the broker."""
        self._lives, self._deaths, self._history = lives, deaths, history
        self._known: dict[Place, Ownership] = {}

    def of(self, changelog: str, partition: int) -> Ownership:
        place = changelog, partition
        if place not in self._known:
            self._known[place] = Ownership(self._history(*place))
        return self._known[place]

    def excused(self, changelogs: Sequence[str], cause: Cause, first: float, again: float) -> bool:
        """Whether what follows from a record may have been said `first` and then `again`, for these changelogs."""
        topic, partition, offset = cause
        if any(
            died - SENT <= first <= died + 1 and died <= again <= died + AGAIN
            for died in self._deaths
            if not any(self.of(each, partition).folded(topic, died) > offset for each in changelogs)
        ):
            return True
        return any(
            self._lives[turn.owner].late(turn.claimed, turn.shut_out, at)
            for turn in self._turns(changelogs, topic, partition)
            if offset >= turn.folded and self._lives[turn.owner].unheard(turn.shut_out, first)
            for at in (first, again)
        )

    def _turns(self, changelogs: Sequence[str], topic: str, partition: int) -> Iterable[Turn]:
        owned: Mapping[str, Ownership] = {each: self.of(each, partition) for each in changelogs}
        for own, mine in owned.items():
            for n, (claimed, owner) in enumerate(mine.claims):
                until = mine.claims[n + 1][0] if n + 1 < len(mine.claims) else float("inf")
                if until < float("inf"):
                    yield Turn(owner, claimed, until, mine.folded(topic, until))
                for other in owned.keys() - {own}:
                    for at, who in owned[other].claims:
                        if claimed < at < until and who != owner:
                            yield Turn(owner, claimed, at, mine.folded(topic, at))
