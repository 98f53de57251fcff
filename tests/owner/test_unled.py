"""A group in which nobody knows that he leads it is given out anew where topics come or go."""

from __future__ import annotations

from streams.owner.unled import PATIENCE, Given, Unled

BOTH, ONE = {"data": 4, "jobs": 4}, {"data": 4, "jobs": 0}


def test_who_leads_has_a_while_to_notice() -> None:
    unled = Unled()
    assert not unled.asks(Given(1, BOTH), 0.0)
    assert not unled.asks(Given(1, ONE), 1.0)
    assert not unled.asks(Given(1, ONE), 1.0 + PATIENCE / 2)
    assert not unled.asks(Given(2, ONE), 2.0 + PATIENCE), "it was given out anew by then"
    assert not unled.asks(Given(2, ONE), 9.0 + PATIENCE)


def test_where_nobody_notices_it_is_asked_for_now_and_then() -> None:
    unled = Unled()
    asked = [now for now in range(50) if unled.asks(Given(1, BOTH if now < 5 else ONE), float(now))]
    assert asked == [5 + PATIENCE, 5 + 2 * PATIENCE, 5 + 3 * PATIENCE, 5 + 4 * PATIENCE]


def test_what_comes_back_as_it_was_is_no_change() -> None:
    unled = Unled()
    seen = [BOTH, ONE, ONE, BOTH, ONE]
    assert not any(unled.asks(Given(1, topics), 6.0 * n) for n, topics in enumerate(seen))
