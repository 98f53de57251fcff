"""Every bound of the watch, on a clock of the test's own."""

from __future__ import annotations

import pytest

from streams.health.watch import (
    JOINING,
    Halted,
    Healthy,
    Patience,
    Phase,
    Sight,
    Stalled,
    Starting,
    State,
    answered,
    begun,
    seen,
    suspects,
    unanswered,
    verdict,
    void,
)

BOUNDS = Patience(stalled=30, ends=60)
A, B = ("company-data", 0), ("company-data", 1)


def at(now: float, a: int | None, end: int, state: State | None = None, phase: Phase = "working") -> State:
    return answered(seen(state or begun(0), Sight(phase, {A: a}), now), {A: end}, now)


def test_who_has_taken_everything_in_is_healthy_however_long_nothing_comes() -> None:
    state = at(1, 100, 100)
    assert verdict(at(100_000, 100, 100, state), BOUNDS, 100_000) == Healthy()


def test_who_lags_and_moves_is_healthy() -> None:
    state = at(1, 1, 1_000_000)
    for now in range(2, 200, 20):
        state = at(now, now, 1_000_000, state)
        assert verdict(state, BOUNDS, now) == Healthy()


@pytest.mark.parametrize(("now", "stands"), [(29.9, False), (30, True)])
def test_who_lags_and_stands_is_named_at_the_bound(now: float, stands: bool) -> None:
    state = at(now, 7, 100, at(0, 7, 100))
    found = verdict(state, BOUNDS, now)
    assert isinstance(found, Stalled) is stands
    if isinstance(found, Stalled):
        assert found == Stalled("company-data/0 stands at 7 of 100", since=0, ends=90)


def test_the_patience_begins_when_the_lag_begins_not_when_it_last_moved() -> None:
    state = at(500, 100, 101, at(0, 100, 100))
    assert verdict(at(529, 100, 101, state), BOUNDS, 529) == Healthy()
    assert isinstance(verdict(at(530, 100, 102, state), BOUNDS, 530), Stalled)


def test_the_lag_of_one_partition_is_not_hidden_by_the_progress_of_another() -> None:
    state = begun(0)
    for now in range(0, 40, 5):
        state = answered(seen(state, Sight("working", {A: 3, B: now}), now), {A: 9, B: 1000}, now)
    assert isinstance(found := verdict(state, BOUNDS, 35), Stalled)
    assert found.what == "company-data/0 stands at 3 of 9"


def test_a_worker_that_cannot_say_where_it_stands_is_not_taken_to_move() -> None:
    state = at(0, 5, 100)
    for now in (10, 20, 30):
        state = at(now, None, 100, state)
    assert isinstance(verdict(state, BOUNDS, 30), Stalled)


def test_beats_are_progress_for_all_that_waits_behind_one_record() -> None:
    state = begun(0)
    for now in range(0, 3600, 20):
        state = answered(seen(state, Sight("working", {A: 3, B: 0}, beats=now), now), {A: 9, B: 9}, now)
        assert verdict(state, BOUNDS, now) == Healthy()
    state = answered(seen(state, Sight("working", {A: 3, B: 0}, beats=now), now + 30), {A: 9, B: 9}, now + 30)
    assert isinstance(verdict(state, BOUNDS, now + 30), Stalled)


def test_moving_again_heals() -> None:
    state = at(40, 7, 100, at(0, 7, 100))
    assert isinstance(verdict(state, BOUNDS, 40), Stalled)
    assert verdict(at(41, 8, 100, state), BOUNDS, 41) == Healthy()


def test_offsets_that_hold_no_record_are_no_lag() -> None:
    """A transaction's ending takes an offset that no reader ever passes."""
    state = at(20, 100, 101, at(0, 100, 101))
    assert suspects(state, BOUNDS, 14.9) == []
    assert suspects(state, BOUNDS, 20) == [A]
    state = void(state, A, 101)
    assert suspects(state, BOUNDS, 1000) == []
    assert verdict(at(1000, 100, 101, state), BOUNDS, 1000) == Healthy()
    later = at(1000, 100, 102, state)
    assert verdict(later, BOUNDS, 1029) == Healthy()
    assert suspects(later, BOUNDS, 1029) == [A]


@pytest.mark.parametrize(("now", "stands"), [(29.9, False), (30, True)])
def test_a_log_that_does_not_answer_is_a_stall_even_where_nothing_is_behind(now: float, stands: bool) -> None:
    state = unanswered(at(0, 100, 100), "Unreachable: nobody there")
    found = verdict(seen(state, Sight("working", {A: 100}), now), BOUNDS, now)
    assert isinstance(found, Stalled) is stands
    if isinstance(found, Stalled):
        assert "nobody there" in found.what


def test_restoring_is_not_ready_and_stalls_only_when_it_stands() -> None:
    state = at(0, 0, 1000, phase="restoring")
    for now in range(10, 300, 10):
        state = at(now, now, 1000, state, "restoring")
        assert isinstance(verdict(state, BOUNDS, now), Starting)
    state = at(320, 290, 1000, state, "restoring")
    assert isinstance(found := verdict(state, BOUNDS, 320), Stalled)
    assert found.what == "restoring company-data/0 at 290 of 1000"


def test_joining_has_more_patience_and_an_end() -> None:
    quiet = answered(seen(begun(0), Sight("joining", {}), 1), {}, BOUNDS.stalled * JOINING)
    assert isinstance(verdict(quiet, BOUNDS, BOUNDS.stalled * JOINING - 1), Starting)
    assert isinstance(verdict(quiet, BOUNDS, BOUNDS.stalled * JOINING), Stalled)


@pytest.mark.parametrize("before", ["joining", "restoring"])
def test_who_waited_long_for_its_partitions_has_all_its_patience_in_them(before: Phase) -> None:
    state = at(0, 7, 1000, phase=before)
    state = at(139, 7, 1000, state)
    assert verdict(state, BOUNDS, 139 + BOUNDS.stalled - 1) == Healthy()
    assert isinstance(verdict(state, BOUNDS, 139 + BOUNDS.stalled), Stalled)


@pytest.mark.parametrize("between", ["joining", "restoring"])
def test_a_group_that_is_given_out_again_and_again_hides_no_partition_that_stands(between: Phase) -> None:
    """Each time for two seconds, and sooner than the patience ends: of the time at work none is forgiven."""
    state, now = at(0, 7, 1000), 0.0
    while isinstance(verdict(state, BOUNDS, now), Healthy) and now < 500:
        state = at(now + 10, 7, 1000, at(now + 8, 7, 1000, state, between))
        now += 10
    assert isinstance(found := verdict(state, BOUNDS, now), Stalled)
    assert BOUNDS.stalled <= found.since + BOUNDS.stalled <= now < 2 * BOUNDS.stalled


def test_a_member_without_partitions_is_healthy() -> None:
    assert verdict(answered(seen(begun(0), Sight("working", {}), 1), {}, 500), BOUNDS, 500) == Healthy()


def test_what_was_given_away_is_forgotten() -> None:
    state = at(40, 7, 100, at(0, 7, 100))
    gone = answered(seen(state, Sight("working", {}), 41), {}, 41)
    assert verdict(gone, BOUNDS, 41) == Healthy()


def test_a_partition_that_waits_for_an_operator_is_not_ready_and_ends_nobody() -> None:
    """A restart would change nothing for it, and take the others down; another that stands is a stall as ever."""
    lost = Sight("working", {A: 30, B: 5}, lost={A: "company-data/0 is lost"})
    state = answered(seen(begun(0), lost, 1), {A: 7, B: 5}, 1)
    for now in (2, 100_000):
        state = answered(seen(state, lost, now), {A: 7, B: 5}, now)
        assert verdict(state, BOUNDS, now) == Halted("company-data/0 is lost")
    state = answered(state, {A: 7, B: 6}, 100_001)
    state = answered(seen(state, lost, 100_032), {A: 90, B: 6}, 100_032)
    assert suspects(state, BOUNDS, 100_032) == [B]
    found = verdict(state, BOUNDS, 100_032)
    assert isinstance(found, Stalled)
    assert found.what == "company-data/1 stands at 5 of 6"


def test_what_another_worker_reads_as_yet_is_behind_and_no_stall() -> None:
    waits = Sight("working", {A: 30, B: 5}, elsewhere=[A])
    state = answered(seen(begun(0), waits, 1), {A: 90, B: 5}, 1)
    state = answered(seen(state, waits, 100_000), {A: 90, B: 5}, 100_000)
    assert verdict(state, BOUNDS, 100_000) == Healthy()
    assert state.places[A].lag == 60
    state = answered(seen(state, waits._replace(elsewhere=[]), 100_001), {A: 90, B: 5}, 100_001)
    assert isinstance(verdict(state, BOUNDS, 100_001), Stalled)
