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
        self._run = [each.company for each in passed if each.reason in OF_CODE]

    def taken(self) -> None:
        self._run.clear()

    def judge(self, outcomes: Iterable[Refusal | None]) -> None:
        """Of what is about to be committed, in order; None is an event that was taken."""
        for outcome in outcomes:
            if outcome is None:
                self.taken()
            elif outcome.reason in OF_CODE:
                self._run.append(outcome.company)
                if len(self._run) >= IN_A_ROW and (companies := len(set(self._run))) >= COMPANIES:
                    raise EverythingRefused(
                        self._changelog, self._partition, len(self._run), companies, outcome.reason, outcome.detail
                    )
