"""What an operator has said of records that are lost. A word answers one loss, once."""

import logging
from collections.abc import Collection, Mapping
from typing import NamedTuple

from streams.errors import NAMED

log = logging.getLogger(__name__)
Accepted = Mapping[str, int]
"""`topic/partition@offset`, which is what was folded and is lost -> the offset at which to go on."""


class LossWord(NamedTuple):
    """Of which loss at which offset of its place, and where to go on."""

    folded: int
    nth: int
    next: int


def word(place: str, folded: int, nth: int) -> str:
    """What was lost at the same offset before has had its word: that says nothing of what is lost there again."""
    return f"{place}@{folded}" + (f"#{nth}" if nth > 1 else "")


def unspent(place: str, offsets: Collection[int], spent: Collection[tuple[int, int]]) -> list[str]:
    """The next word about each."""
    return [word(place, at, 1 + max((nth for then, nth in spent if then == at), default=0)) for at in sorted(offsets)]


class Acceptance:
    def __init__(self, accepted: Accepted, topics: Collection[str]) -> None:
        self._accepted = accepted
        self._obeyed: set[str] = set()
        if strange := sorted(key for key in accepted if key.partition("/")[0] not in topics):
            log.warning("RILLFOLD_ACCEPT_LOSS names %s: no topic that is folded here", ", ".join(strange), extra=NAMED)

    def of(self, place: str, folded: int) -> LossWord | None:
        """The last word about what was folded so far."""
        return max((word for word in self.all(place) if word.folded == folded), default=None)

    def all(self, place: str) -> list[LossWord]:
        found = ((key.removeprefix(f"{place}@").partition("#"), on) for key, on in self._of(place))
        return [LossWord(int(folded), int(nth or 1), on) for (folded, _, nth), on in found]

    def about(self, place: str) -> list[str]:
        return [f'"{key}": {on}' for key, on in self._of(place)]

    def obeyed(self, place: str, said: LossWord) -> None:
        """Whoever leaves it there may believe that it answers the next loss, too."""
        old, new = word(place, said.folded, said.nth), word(place, said.folded, said.nth + 1)
        if old not in self._obeyed:
            self._obeyed.add(old)
            log.warning(
                "RILLFOLD_ACCEPT_LOSS's %s was there when a loss was answered, and answers no other: take it out. Of "
                "records that were lost there once more, say %s",
                *(old, new),
                extra=NAMED,
            )

    def _of(self, place: str) -> list[tuple[str, int]]:
        return [(key, on) for key, on in self._accepted.items() if key.startswith(f"{place}@")]
