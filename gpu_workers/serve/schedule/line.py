"""Whose row is let in next. Owners pay with tokens, and who has nothing running, or has paid least, is first."""

from __future__ import annotations

from dataclasses import dataclass, field
from heapq import heapify, heappop, heappush
from typing import Generic, Protocol, TypeVar

from streams.fairness.urgency import ByUrgency

PATIENCE = 256
"""So many rows of others are let in while an owner waits, at most, before its own first one is."""
DEBTS = 4_096
"""Owners who have gone are remembered, so many at most: to leave and come back pays no debt."""


class Owned(Protocol):
    @property
    def owner(self) -> str | None: ...
    @property
    def priority(self) -> int: ...


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
    """How many had been let in when it last had something running, or came."""
    line: ByUrgency[Row] = field(default_factory=ByUrgency)
    """Who has given way stands at its place again."""

    @property
    def had(self) -> int:
        return self.spent + self.ahead


class _Order(Generic[Row]):
    """Accounts by a number, the lowest first, and of the same number who was put there first."""

    def __init__(self) -> None:
        self._heap: list[tuple[int, int, Account[Row]]] = []
        self._last: dict[Account[Row], int] = {}
        """What counts of each, by when it was put there; the rest of the heap is from before."""
        self._puts = 0

    def put(self, account: Account[Row], by: int) -> None:
        if len(self._heap) > 2 * len(self._last) + DEBTS:
            self._heap = [each for each in self._heap if self._counts(each)]
            heapify(self._heap)
        self._puts += 1
        self._last[account] = self._puts
        heappush(self._heap, (by, self._puts, account))

    def drop(self, account: Account[Row]) -> None:
        self._last.pop(account, None)

    def first(self) -> Account[Row] | None:
        while self._heap and not self._counts(self._heap[0]):
            heappop(self._heap)
        return self._heap[0][2] if self._heap else None

    def _counts(self, entry: tuple[int, int, Account[Row]]) -> bool:
        return self._last.get(entry[2]) == entry[1]


class Line(Generic[Row]):
    """Cheap however many wait: what an owner has had changes only while it has something running, and few have."""

    def __init__(self) -> None:
        self.accounts: dict[str | None, Account[Row]] = {}
        self._waiting: dict[str | None, Account[Row]] = {}
        """Of those who have a row in the line."""
        self._running: dict[str | None, Account[Row]] = {}
        self._least: _Order[Row] = _Order()
        """Those in the line who have nothing running, by what they had."""
        self._longest: _Order[Row] = _Order()
        """The same, by how long they wait."""
        self._rows = 0
        self._let_in = 0

    def opened(self, owner: str | None) -> None:
        """An owner brings a row. Who had none waiting begins with what the others have had: idling saves up nothing."""
        if (account := self.accounts.get(owner)) is None:
            if len(self.accounts) >= DEBTS:
                self.accounts = {key: each for key, each in self.accounts.items() if each.rows}
            account = self.accounts[owner] = Account()
        if not account.rows:
            account.since = self._let_in
        if account.rows == account.running:
            others = (self._waiting or self._running).values()
            account.spent = max(account.spent, min((each.spent for each in others), default=0))
        account.rows += 1
        self._rows += 1

    def closed(self, owner: str | None) -> None:
        """A row has left. With nobody there, nobody owes anything to anybody."""
        self.accounts[owner].rows -= 1
        self._rows -= 1
        if not self._rows:
            self.accounts.clear()

    def join(self, row: Row, place: int) -> None:
        account = self.accounts[row.owner]
        account.line.join(row, place, row.priority)
        if row.owner not in self._waiting:
            self._waiting[row.owner] = account
            self._stands(account)

    def pull(self, row: Row) -> None:
        """Out of the line, wherever it stands."""
        account = self.accounts[row.owner]
        if account.line.leave(row):
            self._left(row, account)

    def let_in(self, row: Row, ahead: int) -> None:
        account = self.accounts[row.owner]
        if account.line.goes(row):
            self._left(row, account)
        self._let_in += 1
        self._running[row.owner] = account
        account.running += 1
        account.ahead += ahead
        self._gone(account)

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
            account.since = self._let_in
            self._stands(account)

    @property
    def idle(self) -> bool:
        """Is somebody in it who has nothing running?"""
        return self._least.first() is not None

    def first(self) -> Row | None:
        """Of who has nothing running: of who has waited too long, else of who had least. Else of all who had least."""
        neediest = self._longest.first()
        if neediest is None or self._let_in - neediest.since <= PATIENCE:
            there = (each for each in self._running.values() if each.line)
            neediest = self._least.first() or min(there, key=lambda each: each.had, default=None)
        return neediest.line.first() if neediest else None

    def _left(self, row: Row, account: Account[Row]) -> None:
        if not account.line:
            del self._waiting[row.owner]
            self._gone(account)

    def _stands(self, account: Account[Row]) -> None:
        if account.line and not account.running:
            self._least.put(account, account.had)
            self._longest.put(account, account.since)

    def _gone(self, account: Account[Row]) -> None:
        self._least.drop(account)
        self._longest.drop(account)
