"""Consumers: decisions without a table, delivered at least once."""

from __future__ import annotations

import pytest

from rillfold.testing.member import Consumer
from schemas.adapters import AdapterRequested
from schemas.company import TextIngested
from schemas.envelope import Event, caused_by
from schemas.training import TrainingRequested

TEXT = {"type": "text.ingested", "company": "acme", "text": "learn this"}


def wish(event: Event, now: int) -> tuple[Event, ...]:
    if not isinstance(event, TextIngested):
        return ()
    return (TrainingRequested(**caused_by(event, 0, now), base_model="base"),)


def look(event: Event, now: int) -> tuple[Event, ...]:
    return (AdapterRequested(**caused_by(event, 0, now), adapter="acme/x"),)


WISHER = Consumer("wisher", ("company-data",), wish)
LOOKER = Consumer("looker", ("training-request",), look)


async def test_an_answer_follows_from_an_event(drive) -> None:
    d = await drive(consumers=[WISHER])
    await d.send(TEXT)
    await d.settle()
    (cause,) = await d.events("company-data")
    (wished,) = await d.events("training-request")
    assert (wished.causation, wished.correlation, wished.company) == (cause.id, cause.id, "acme")


async def test_one_consumers_answer_is_the_others_question(drive) -> None:
    d = await drive(consumers=[WISHER, LOOKER])
    await d.send(TEXT)
    await d.settle()
    (looked,) = await d.events("adapter-request")
    (cause,) = await d.events("company-data")
    assert looked.correlation == cause.id


@pytest.mark.parametrize(("step", "times"), [("decoded", 1), ("published", 2)])
async def test_a_crash_repeats_an_answer_under_its_id(drive, step: str, times: int) -> None:
    d = await drive(consumers=[WISHER])
    await d.crash("wisher", at=step)
    await d.send(TEXT)
    await d.settle()
    said = await d.events("training-request")
    assert (len(said), len({event.id for event in said})) == (times, 1)


async def test_what_is_handled_is_not_handled_again(drive) -> None:
    d = await drive(consumers=[WISHER])
    await d.send(TEXT)
    await d.settle()
    await d.crash("wisher")
    await d.send(TEXT)
    await d.settle()
    assert len(await d.events("training-request")) == 2


async def test_bytes_that_are_no_event_do_not_stop_it(drive) -> None:
    d = await drive(consumers=[WISHER])
    await d.send_bytes("company-data", b"junk")
    await d.send(TEXT)
    await d.settle()
    assert len(await d.events("training-request")) == 1


async def test_folds_and_consumers_share_a_log(drive, accounts, payment) -> None:
    d = await drive([accounts], consumers=[WISHER])
    await d.send(TEXT)
    await d.send(payment(3))
    await d.settle()
    assert d.query(accounts, "acme").total == 3
    assert len(await d.events("training-request")) == 1
    assert await d.digest(accounts) == await d.refold(accounts)
