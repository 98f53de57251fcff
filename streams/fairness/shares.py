"""How much of something bounded each company has: so much at most, and when all is taken no more than an even share."""

from collections import Counter


class Shares:
    def __init__(self, of_one: int, of_all: int) -> None:
        self._of_one, self._of_all = of_one, of_all
        self._taken: Counter[str] = Counter()
        self._total = 0

    def room(self, company: str, more: int = 1) -> bool:
        mine = self._taken[company] + more
        even = self._of_all // max(1, len(self._taken))
        return mine <= self._of_one and (self._total + more <= self._of_all or mine <= even)

    def take(self, company: str, more: int = 1) -> None:
        self._taken[company] += more
        self._total += more

    def leave(self, company: str, less: int = 1) -> None:
        self._total -= less
        self._taken[company] -= less
        if not self._taken[company]:
            del self._taken[company]
