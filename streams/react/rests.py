"""Companies whose events hold up the others and fail: they rest, so that no more than a share of the time is theirs."""

REST = 4
"""Times as long as a company's events have held up the others and then failed, its events fail at once."""
HELD_UP_SECONDS = 1.0
"""So much in all nobody rests for. It is paid off as slowly as a rest is."""
BRIEF_SECONDS = 0.1
"""What fails sooner holds up nobody: else a fault that is raised at once would cost a company its good events, too."""


class Rests:
    """Only failures count: who is slow and succeeds has had work done."""

    def __init__(self) -> None:
        self._owes: dict[str, float] = {}
        """Company to the time at which its failures will have been a share of the time and no more."""
        self._until: dict[str, float] = {}
        """Company to the time until which its events fail at once."""

    def resting(self, company: str, now: float) -> bool:
        return now < self._until.get(company, 0.0)

    def failed(self, company: str, begun: float, took: float) -> None:
        if took < BRIEF_SECONDS:
            return
        now = begun + took
        owes = max(begun, self._owes.get(company, 0.0)) + (1 + REST) * took
        self._owes = {each: until for each, until in self._owes.items() if until > now}
        self._until = {each: until for each, until in self._until.items() if until > now}
        if owes > now:
            self._owes[company] = owes
        if owes - now >= REST * HELD_UP_SECONDS:
            self._until[company] = owes
