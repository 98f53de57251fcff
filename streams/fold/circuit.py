"""When it is not the event: a release that refuses everybody's, one after another, ends before it passes them."""

from collections.abc import Iterable

from streams.errors import EverythingRefused
from streams.state.refusal import Refusal

IN_A_ROW = 20
COMPANIES = 3
"""No company alone opens the circuit, whatever it sends."""
OF_CODE = frozenset({"raised", "bad_row"})
"""Reasons that can be the release's own fault. A size or a key is always the event's."""


class ReleaseCircuit:
    """Of one shard: the refusals since something was last taken."""

    def __init__(self, changelog: str, partition: int, passed: Iterable[Refusal] = ()) -> None:
        """`passed` are those that stand right below the markers: a restart goes on counting."""
        self._changelog, self._partition = changelog, partition
        self._run, self._companies = 0, set[str]()
        for each in passed:
            self._count(each)

    def taken(self) -> None:
        self._run = 0
        self._companies.clear()

    def judge(self, outcomes: Iterable[Refusal | None]) -> None:
        """Of what is about to be committed, in order; None is an event that was taken."""
        for outcome in outcomes:
            if outcome is None:
                self.taken()
            elif self._count(outcome) and self._run >= IN_A_ROW and len(self._companies) >= COMPANIES:
                raise EverythingRefused(
                    *(self._changelog, self._partition, self._run, len(self._companies)),
                    *(outcome.reason, outcome.detail),
                )

    def _count(self, refusal: Refusal) -> bool:
        """False where it is the event's own fault."""
        if refusal.reason not in OF_CODE:
            return False
        self._run += 1
        self._companies.add(refusal.company)
        return True
