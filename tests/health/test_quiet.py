"""An outage says itself in a few lines."""

from __future__ import annotations

import logging

import pytest

from rillfold.workers.logging import KINDS, OncePer


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


def record(message: str, *args: object, level: int = logging.ERROR, name: str = "aiokafka") -> logging.LogRecord:
    return logging.LogRecord(name, level, "file.py", 1, message, args, None)


def test_a_flood_is_one_line_each_period_with_its_count(clock: Clock) -> None:
    once, passed = OncePer(10, clock), []
    for n in range(2300):
        clock.now = n * 11 / 2300
        found = record("Unable to connect to node with id %s: %s", n, f"error {n}")
        if once.filter(found):
            passed.append(found.getMessage())
    assert len(passed) == 2
    assert passed[0] == "Unable to connect to node with id 0: error 0"
    assert passed[1].endswith("more since the last)")


def test_other_messages_pass(clock: Clock) -> None:
    once = OncePer(10, clock)
    kinds = [record("a"), record("b"), record("a", name="other"), record("a", level=logging.WARNING)]
    assert all(once.filter(found) for found in kinds)
    assert not any(once.filter(found) for found in kinds)


def test_bare_errors_are_told_apart_by_their_text_not_by_their_numbers(clock: Clock) -> None:
    once = OncePer(10, clock)
    assert once.filter(record("%s", "no broker at port 1"))
    assert not once.filter(record("%s", "no broker at port 2"))
    assert once.filter(record("%s", "no database"))


def test_what_ends_the_process_always_passes(clock: Clock) -> None:
    once = OncePer(10, clock)
    assert all(once.filter(record("over", level=logging.CRITICAL)) for _ in range(3))


def test_messages_that_are_new_each_time_cost_no_memory(clock: Clock) -> None:
    once = OncePer(10, clock)
    for n in range(KINDS + 500):
        once.filter(record("".join(chr(97 + int(digit)) for digit in str(n))))
    assert len(once._kinds) == KINDS
