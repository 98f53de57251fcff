"""Of each worker when it began, ended and slept: who may have been at work at a moment."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple

IN_HAND = 30.0
"""Seconds: so long who is awake needs for what it has in hand, until its next commit tells that it is shut out."""


ON_ITS_WAY = 5.0
"""Seconds: so old may be what comes to the log behind whoever looks into it, if its sender is awake."""


class Nap(NamedTuple):
    began: float
    ended: float


@dataclass
class Life:
    """Of all processes of one name: what their supervisor knows. Times are seconds since 1970."""

    breaks: list[float] = field(default_factory=list)
    """When one began, was killed, or was seen to have ended."""
    naps: list[Nap] = field(default_factory=list)

    def unbroken(self, since: float, until: float) -> bool:
        return not any(since < each <= until for each in self.breaks)

    def late(self, claimed: float, shut_out: float, at: float) -> bool:
        """Whether the process that claimed then may still have said something `at`, with no look at what has come."""
        if at < shut_out or not self.unbroken(claimed, at):
            return False
        slept = [nap.ended for nap in self.naps if nap.began <= shut_out + IN_HAND and nap.ended >= shut_out]
        return any(at <= each + IN_HAND for each in (shut_out, *slept))

    def unheard(self, shut_out: float, first: float) -> bool:
        """Whether what it said `first` may have come to the log after whoever took over had looked into it."""
        slept = (nap.began - ON_ITS_WAY <= first <= nap.began and nap.ended >= shut_out for nap in self.naps)
        return first >= shut_out - ON_ITS_WAY or any(slept)
