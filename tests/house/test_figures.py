"""The README's figures are those that were measured and kept."""

from __future__ import annotations

import pytest

from bench.figures import BEGIN, END, README, kept, table

RESULT = {
    "bench": "turns of a wheel",
    "date": "2026-01-02",
    "machine": "2 x made up",
    "ratios": {"peer": {"ratio": 0.5, "low": 0.4, "high": 0.612, "figure": "per_s", "ours": "us", "peer": "them"}},
}


def test_the_table_is_made_of_the_results_that_are_kept() -> None:
    assert kept(), "rillfold bench codec --json | python -m bench.figures keep"
    _, _, rest = README.read_text().partition(BEGIN)
    assert rest.partition(END)[0] == table(kept())


def test_a_loss_is_told_like_a_gain() -> None:
    told = table([RESULT])
    assert "| us, per_s | them | 0.50 (0.40 to 0.61) | `rillfold bench turns` |" in told
    assert "Taken 2026-01-02 on 2 x made up." in told


@pytest.mark.parametrize("result", kept(), ids=lambda result: str(result["bench"]))
def test_a_result_says_how_it_was_taken(result: dict[str, object]) -> None:
    assert result["runs"] and result["machine"] and result["date"] and result["ratios"]
