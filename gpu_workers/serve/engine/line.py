"""Whose row is let in next. Owners pay with tokens, and who has nothing running, or has paid least, is first."""

from __future__ import annotations

from dataclasses import dataclass, field
from heapq import heappop, heappush
from typing import Generic, Protocol, TypeVar

PATIENCE = 256
"""So many rows of others are let in while an owner waits, at most, before its own first one is."""
DEBTS = 4_096
"""Owners who have gone are remembered, so many at most: to leave and come back pays no debt."""


class Owned(Protocol):
    @property
    def owner(self) -> str | None: ...


Row = TypeVar("Row", bound=Owned)


@dataclass(eq=False)
class Account(Generic[Row]):
    """What one owner has had, and who of it stands in the line."""

    spent: int = 0
    """Tokens computed for it."""
    ahead: int = 0
    """Tokens for which its running rows were let in: as if it had had them, so that one owner is not let in for all."""
    rows: int = 0
    """Wherever they are."""
    running: int = 0
    since: int = 0
    """How many had been let in when it last was, or came to the line."""
    line: list[tuple[int, Row]] = field(default_factory=list)
    """A heap: who came first is first, also when it has given way."""

    @property
    def had(self) -> int:
        return self.spent + self.ahead

    def urgency(self, let_in: int) -> tuple[int, int, int]:
        if let_in - self.since > PATIENCE:
            return 0, self.since, 0
        return 1, min(self.running, 1), self.had


class Line(Generic[Row]):
    def __init__(self) -> None:
        self.accounts: dict[str | None, Account[Row]] = {}
        self._waiting: dict[str | None, Account[Row]] = {}
        """Of those who have a row in the line."""
        self._places: dict[Row, int] = {}
        self._rows = 0
        self._let_in = 0

    def opened(self, owner: str | None) -> None:
        """An owner brings a row. Who had none waiting begins with what the others have had: idling saves up nothing."""
        if (account := self.accounts.get(owner)) is None:
            if len(self.accounts) >= DEBTS:
                self.accounts = {key: each for key, each in self.accounts.items() if each.rows}
            account = self.accounts[owner] = Account()
        account.rows += 1
        self._rows += 1
        if owner not in self._waiting:
            others = self._waiting or {key: each for key, each in self.accounts.items() if each.running}
            account.spent = max(account.spent, min((each.spent for each in others.values()), default=0))

    def closed(self, owner: str | None) -> None:
        """A row has left. With nobody there, nobody owes anything to anybody."""
        self.accounts[owner].rows -= 1
        self._rows -= 1
        if not self._rows:
            self.accounts.clear()

    def join(self, row: Row, place: int) -> None:
        account = self.accounts[row.owner]
        if not account.line:
            account.since = self._let_in
            self._waiting[row.owner] = account
        self._places[row] = place
        heappush(account.line, (place, row))

    def pull(self, row: Row) -> None:
        """Out of the line, wherever it stands. The first of each owner's line is always one who is still in it."""
        if self._places.pop(row, None) is None:
            return
        line = self.accounts[row.owner].line
        while line and self._places.get(line[0][1]) != line[0][0]:
            heappop(line)
        if not line:
            del self._waiting[row.owner]

    def let_in(self, row: Row) -> None:
        self.pull(row)
        self._let_in += 1
        account = self.accounts[row.owner]
        account.running += 1
        account.since = self._let_in

    def first(self) -> Row | None:
        if not self._waiting:
            return None
        neediest = min(self._waiting.values(), key=lambda each: (*each.urgency(self._let_in), each.line[0][0]))
        return neediest.line[0][1]
