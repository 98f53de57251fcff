"""Whose row is let in next. Owners pay with tokens, and who has nothing running, or has paid least, is first."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass, field
from heapq import heapify, heappop, heappush
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
    turn: int = 0
    """Where it stands among those who have nothing running, or 0."""
    line: list[tuple[int, Row]] = field(default_factory=list)
    """A heap: who came first is first, also when it has given way."""

    @property
    def had(self) -> int:
        return self.spent + self.ahead


class Line(Generic[Row]):
    """Cheap however many wait: what an owner has had changes only while it has something running, and few have."""

    def __init__(self) -> None:
        self.accounts: dict[str | None, Account[Row]] = {}
        self._waiting: OrderedDict[str | None, Account[Row]] = OrderedDict()
        """Of those who have a row in the line, the longest waiting first."""
        self._running: dict[str | None, Account[Row]] = {}
        self._idle: list[tuple[int, int, Account[Row]]] = []
        """A heap of those in the line who have nothing running: what it had, its turn."""
        self._places: dict[Row, int] = {}
        self._turns = 0
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
            others = (self._waiting or self._running).values()
            account.spent = max(account.spent, min((each.spent for each in others), default=0))

    def closed(self, owner: str | None) -> None:
        """A row has left. With nobody there, nobody owes anything to anybody."""
        self.accounts[owner].rows -= 1
        self._rows -= 1
        if not self._rows:
            self.accounts.clear()

    def join(self, row: Row, place: int) -> None:
        account = self.accounts[row.owner]
        self._places[row] = place
        heappush(account.line, (place, row))
        if row.owner not in self._waiting:
            account.since = self._let_in
            self._waiting[row.owner] = account
            self._stands(account)

    def pull(self, row: Row) -> None:
        """Out of the line, wherever it stands. The first of each owner's line is always one who is still in it."""
        if self._places.pop(row, None) is None:
            return
        account = self.accounts[row.owner]
        while account.line and self._places.get(account.line[0][1]) != account.line[0][0]:
            heappop(account.line)
        if not account.line:
            del self._waiting[row.owner]
            account.turn = 0

    def let_in(self, row: Row, ahead: int) -> None:
        self.pull(row)
        self._let_in += 1
        account = self._running[row.owner] = self.accounts[row.owner]
        account.running += 1
        account.ahead += ahead
        account.turn, account.since = 0, self._let_in
        if row.owner in self._waiting:
            self._waiting.move_to_end(row.owner)

    def computed(self, row: Row, tokens: int, ahead: int) -> None:
        """So many for it, so many of them those for which it was let in."""
        account = self.accounts[row.owner]
        account.spent += tokens
        account.ahead -= ahead

    def stopped(self, row: Row, ahead: int) -> None:
        """It runs no more; so much of that for which it was let in was not computed."""
        account = self.accounts[row.owner]
        account.running -= 1
        account.ahead -= ahead
        if not account.running:
            del self._running[row.owner]
            self._stands(account)

    def first(self) -> Row | None:
        """Of who has waited too long; else of who has nothing running; else of who has had least."""
        if not self._waiting:
            return None
        neediest = next(iter(self._waiting.values()))
        if self._let_in - neediest.since <= PATIENCE:
            while self._idle and self._idle[0][1] != self._idle[0][2].turn:
                heappop(self._idle)
            there = (each for each in self._running.values() if each.line)
            neediest = self._idle[0][2] if self._idle else min(there, key=lambda each: each.had)
        return neediest.line[0][1]

    def _stands(self, account: Account[Row]) -> None:
        if account.line and not account.running:
            if len(self._idle) > 2 * len(self._waiting) + DEBTS:
                self._idle = [each for each in self._idle if each[1] == each[2].turn]
                heapify(self._idle)
            self._turns += 1
            account.turn = self._turns
            heappush(self._idle, (account.had, account.turn, account))
