"""Tokens to dollars, by hand."""

import pytest

from processors.prices import EXTERNAL, LOCAL, Price, cost


def test_cached_tokens_have_their_own_price() -> None:
    assert cost(1000, 400, 100, Price(1.0, 0.5, 2.0)) == pytest.approx(0.6 + 0.2 + 0.2)


def test_the_same_tokens_under_two_tables() -> None:
    assert cost(1_000_000, 0, 1_000_000, EXTERNAL) == pytest.approx(12.5)
    assert cost(1_000_000, 0, 1_000_000, LOCAL) == pytest.approx(0.02)
