"""Differences and how far to trust them, against figures that were worked out by hand."""

from __future__ import annotations

from math import sqrt
from statistics import NormalDist

import pytest

from processors.measure.confidence import difference, interval, mcnemar
from processors.measure.draws import draws
from processors.measure.measures import CaseOutcome, Suite


def suite(right: list[bool], first: int = 0) -> Suite:
    return Suite(name="s", outcomes=tuple(CaseOutcome(id=str(first + n), right=each) for n, each in enumerate(right)))


@pytest.mark.parametrize(
    ("gained", "lost", "chance"),
    [
        (0, 0, 1.0),
        (1, 0, 1.0),
        (5, 0, 2 / 32),
        (8, 1, 2 * (1 + 9) / 512),
        (1, 8, 2 * (1 + 9) / 512),
        (3, 3, 1.0),
        (10, 2, 2 * (1 + 12 + 66) / 4096),
        (600, 400, 2.7e-10),
    ],
)
def test_mcnemar_is_a_fair_coin_on_what_changed(gained, lost, chance):
    assert mcnemar(gained, lost) == pytest.approx(chance, rel=0.06)


def test_the_interval_is_where_the_mean_falls():
    """Of many cases it is the normal one: 1.96 standard errors to each side."""
    differences = [1] * 60 + [0] * 120 + [-1] * 20
    mean = 0.2
    error = sqrt(sum((each - mean) ** 2 for each in differences) / len(differences) / len(differences))
    reach = NormalDist().inv_cdf(0.975) * error
    low, high = interval(differences)
    assert low == pytest.approx(mean - reach, abs=0.01) and high == pytest.approx(mean + reach, abs=0.01)
    assert interval(differences) == (low, high) == pytest.approx(interval(differences, seed=1), abs=0.015)
    assert interval([1] * 9) == (1.0, 1.0) and interval([]) == (0.0, 0.0)


def test_a_difference_is_of_the_cases_that_both_answered():
    candidate, served = suite([True] * 8 + [False, True]), suite([False] * 7 + [True, True, False], first=1)
    found = difference(candidate, served)
    assert found.cases == 9
    # Of ids 1 to 9 the candidate has all but 8, what is served has 8 and 9.
    assert (found.gained, found.lost) == (7, 1)
    assert found.share == pytest.approx((8 - 2) / 9) and found.low < found.share < found.high
    assert found.chance == mcnemar(7, 1)
    nothing = difference(candidate, suite([True], first=99))
    assert (nothing.cases, nothing.share, nothing.chance) == (0, 0.0, 1.0)


def test_draws_are_the_published_ones_of_splitmix64():
    """By its author's own test: the first ones of seed 1234567."""
    first = draws(1234567)
    assert [next(first) for _ in range(3)] == [6457827717110365317, 3203168211198807973, 9817491932198370423]
