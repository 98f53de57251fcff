"""A driver for the backend in question, and a projection small enough to be checked by eye."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from typing import Any

import msgspec
import pytest

from projections.projection import Projection
from rillfold.testing.driver import Driver
from schemas.adapters import AdapterRequested
from schemas.company import RecordIngested
from schemas.envelope import Event, caused_by
from schemas.topics import TopicNames
from streams.log.port import EventLog

Drive = Callable[..., Awaitable[Driver]]


class Account(msgspec.Struct, frozen=True):
    """Counts on purpose what a repeat would count twice."""

    payments: int = 0
    total: int = 0
    warned: bool = False


def paid(state: Account, event: Event) -> Account:
    assert isinstance(event, RecordIngested)
    total = state.total + int(event.data)
    return Account(state.payments + 1, total, state.warned or total >= 100)


def warn(state: Account, event: Event, now: int) -> tuple[Event, ...]:
    """Once, with the payment that brings a hundred together."""
    assert isinstance(event, RecordIngested)
    if not state.warned or state.total - int(event.data) >= 100:
        return ()
    return (AdapterRequested(**caused_by(event, 0, now), adapter=f"{event.company}/warning"),)


def together(one: Account, other: Account) -> Account:
    total = one.total + other.total
    return Account(one.payments + other.payments, total, one.warned or other.warned)


ACCOUNTS = Projection(
    name="accounts",
    version=1,
    topics=("company-data",),
    state=Account,
    key=lambda event: event.company if isinstance(event, RecordIngested) else None,
    initial=lambda _: Account(),
    fold=paid,
    react=warn,
    merge=together,
)


def pay(amount: int, company: str = "acme", entity: str | None = None, **more: Any) -> dict[str, Any]:
    row = {"type": "record.ingested", "company": company, "kind": "payment", "data": str(amount), **more}
    return {**row, "entity": entity} if entity else row


@pytest.fixture
async def drive(log: EventLog, names: TopicNames) -> AsyncIterator[Drive]:
    """`await drive([ACCOUNTS], workers=2)`: a driver that is stopped when the test ends."""
    async with AsyncExitStack() as stack:

        async def start(*arguments: Any, **options: Any) -> Driver:
            return await stack.enter_async_context(Driver(log, *arguments, names=names, **options))

        yield start


@pytest.fixture
def accounts() -> Projection[Account]:
    return ACCOUNTS


@pytest.fixture
def payment() -> Callable[..., dict[str, Any]]:
    return pay
