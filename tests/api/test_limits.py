"""Limits are a pure decision: who is over one is told when to come again, and is right to believe it."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from processors.limits import (
    MINUTE,
    Bucket,
    Busy,
    CompanyBounds,
    RequestCost,
    Usage,
    admit,
    charged,
    finished,
    forgettable,
)

BOUNDS = CompanyBounds(at_once=3, a_second=2.0, bytes_a_minute=600, prompts=1)


def admitted(usage: Usage, cost: RequestCost, now: float) -> Usage:
    found = admit(usage, cost, BOUNDS, now)
    assert isinstance(found, Usage), found
    return found


def test_what_is_under_way_is_counted_until_it_ends() -> None:
    usage = Usage()
    for _ in range(3):
        usage = admitted(usage, RequestCost(), 0.0)
    assert admit(usage, RequestCost(), BOUNDS, 5.0) == Busy("too_many_at_once", 1)
    usage = admitted(finished(usage, RequestCost(), 0), RequestCost(), 5.0)
    assert usage.at_once == 3


def test_prompts_are_counted_apart() -> None:
    usage = admitted(Usage(), RequestCost(prompt=True), 0.0)
    assert admit(usage, RequestCost(prompt=True), BOUNDS, 0.0) == Busy("too_many_prompts", 1)
    usage = finished(admitted(usage, RequestCost(), 0.0), RequestCost(), 0)
    assert isinstance(admit(finished(usage, RequestCost(prompt=True), 0), RequestCost(prompt=True), BOUNDS, 0.0), Usage)


def test_a_burst_then_the_rate() -> None:
    usage = Usage()
    for _ in range(20):
        usage = finished(admitted(usage, RequestCost(), 0.0), RequestCost(), 0)
    assert admit(usage, RequestCost(), BOUNDS, 0.0) == Busy("too_often", 1)
    assert isinstance(admit(usage, RequestCost(), BOUNDS, 0.5), Usage)


def test_bytes_that_never_came_are_given_back() -> None:
    cost = RequestCost(bytes=600)
    usage = finished(admitted(Usage(), cost, 0.0), cost, unsent=500)
    assert admit(usage, cost, BOUNDS, 0.0) == Busy("too_many_bytes", 10)
    usage = admitted(usage, RequestCost(bytes=500), 0.0)
    assert admit(finished(usage, RequestCost(bytes=500), 0), RequestCost(bytes=1), BOUNDS, 0.0) == Busy(
        "too_many_bytes", 1
    )


def test_a_body_larger_than_a_minutes_bytes_is_taken_when_nothing_else_was() -> None:
    assert isinstance(admit(Usage(), RequestCost(bytes=9_000), BOUNDS, 0.0), Usage)


@given(st.lists(st.tuples(st.floats(0, 30), st.integers(0, 800), st.booleans()), max_size=60))
def test_who_comes_when_told_is_let_in_and_nobody_gets_more_than_the_rate(asked) -> None:
    usage, now, taken = Usage(), 0.0, 0
    for pause, size, prompt in asked:
        now, cost = now + pause, RequestCost(bytes=size, prompt=prompt)
        found = admit(usage, cost, BOUNDS, now)
        if isinstance(found, Busy):
            assert found.retry_after >= 1
            later = admit(usage, cost, BOUNDS, now + found.retry_after)
            assert isinstance(later, Usage), (found, later)
            continue
        usage, taken = finished(found, cost, 0), taken + 1
    assert taken <= 20 + now * BOUNDS.a_second


@given(st.floats(0, 1e6), st.floats(-1, 1), st.floats(-9_000, 600), st.integers(0, 9_000), st.floats(0.02, 2.0))
def test_the_seconds_told_are_enough_for_both_rates(pause, requests, sent, size, a_second) -> None:
    bounds = CompanyBounds(at_once=3, a_second=a_second, bytes_a_minute=600, prompts=1)
    usage = Usage(requests=Bucket(requests, pause), bytes=Bucket(sent, pause))
    found = admit(usage, RequestCost(bytes=size), bounds, pause)
    if isinstance(found, Busy):
        later = admit(usage, RequestCost(bytes=size), bounds, pause + found.retry_after)
        assert isinstance(later, Usage), (found, later)


def test_a_rate_below_one_in_ten_seconds_lets_one_in_at_a_time() -> None:
    bounds = CompanyBounds(at_once=3, a_second=0.02, bytes_a_minute=600, prompts=1)
    usage = admit(Usage(), RequestCost(), bounds, 0.0)
    assert isinstance(usage, Usage)
    assert admit(usage, RequestCost(), bounds, 0.0) == Busy("too_often", 50)
    assert isinstance(admit(usage, RequestCost(), bounds, 50.0), Usage)


def test_only_who_rests_is_forgotten() -> None:
    usage = admitted(Usage(), RequestCost(bytes=600), 0.0)
    assert not forgettable(usage, BOUNDS, 1e9)
    usage = finished(usage, RequestCost(bytes=600), 0)
    assert not forgettable(usage, BOUNDS, MINUTE - 1)
    assert forgettable(usage, BOUNDS, MINUTE)
    usage = charged(usage, 1_000, BOUNDS, MINUTE)
    assert isinstance(usage, Usage) and not forgettable(usage, BOUNDS, 2 * MINUTE)
    assert forgettable(usage, BOUNDS, MINUTE + 1_000 / BOUNDS.a_second)


def test_what_was_let_in_beside_another_that_asks_for_much_waits_for_it() -> None:
    one = charged(admitted(admitted(Usage(), RequestCost(), 0.0), RequestCost(), 0.0), 99, BOUNDS, 0.0)
    assert isinstance(one, Usage)
    assert charged(one, 0, BOUNDS, 0.0) == one
    assert charged(one, 1, BOUNDS, 0.0) == Busy("too_often", 41)
    assert isinstance(charged(one, 1, BOUNDS, 41.0), Usage)


def test_a_request_may_be_as_much_as_several() -> None:
    wish = RequestCost(requests=5)
    usage = admitted(admitted(Usage(), wish, 0.0), RequestCost(requests=11), 0.0)
    assert admit(finished(usage, wish, 0), wish, BOUNDS, 0.0) == Busy("too_often", 1)
    slow = CompanyBounds(at_once=3, a_second=0.02, bytes_a_minute=600, prompts=1)
    once = admit(Usage(), wish, slow, 0.0)
    assert isinstance(once, Usage) and admit(once, wish, slow, 0.0) == Busy("too_often", 250)
