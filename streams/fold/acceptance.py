"""What an operator has said of records that are lost. A word answers one loss, once."""

import logging
from collections.abc import Collection, Mapping
from typing import NamedTuple

from streams.errors import NAMED

log = logging.getLogger(__name__)
Accepted = Mapping[str, int]
"""`topic/partition@offset`, which is what was folded and is lost -> the offset at which to go on."""


class LossWord(NamedTuple):
    """Of which loss at its place, and where to go on."""

    nth: int
    next: int


def word(place: str, folded: int, nth: int) -> str:
    """What was lost at the same offset before has had its word: that says nothing of what is lost there again."""
    return f"{place}@{folded}" + (f"#{nth}" if nth > 1 else "")


class Acceptance:
    def __init__(self, accepted: Accepted, topics: Collection[str]) -> None:
        self._accepted = accepted
        self._obeyed: set[str] = set()
        if strange := sorted(key for key in accepted if key.partition("/")[0] not in topics):
            log.warning("RILLFOLD_ACCEPT_LOSS names %s: no topic that is folded here", ", ".join(strange), extra=NAMED)

    def of(self, place: str, folded: int) -> LossWord | None:
        """The last word about this place."""
        at = f"{place}@{folded}"
        found = ((key.partition("#"), on) for key, on in self._accepted.items())
        return max((LossWord(int(nth or 1), on) for (key, _, nth), on in found if key == at), default=None)

    def about(self, place: str) -> list[str]:
        return [f'"{key}": {on}' for key, on in self._accepted.items() if key.startswith(f"{place}@")]

    def obeyed(self, place: str, folded: int, said: LossWord) -> None:
        """Whoever leaves it there may believe that it answers the next loss, too."""
        old, new = word(place, folded, said.nth), word(place, folded, said.nth + 1)
        if old not in self._obeyed:
            self._obeyed.add(old)
            log.warning(
                "RILLFOLD_ACCEPT_LOSS's %s was obeyed before and says nothing any more: take it out. Of records that "
                "were lost there once more, say %s",
                *(old, new),
                extra=NAMED,
            )
