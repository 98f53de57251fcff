"""The README's figures are those that were measured and kept."""

from __future__ import annotations

from typing import Any

import pytest

from bench.figures import BEGIN, BEGIN_FIRST, END, END_FIRST, FIRST, README, first_table, kept, merged, table

RESULT: dict[str, Any] = {
    "bench": "turns of a wheel",
    "date": "2026-01-02",
    "machine": "2 x made up",
    "ratios": {"peer": {"ratio": 0.5, "low": 0.4, "high": 0.612, "figure": "per_s", "ours": "us", "peer": "them"}},
    "costs": {},
    "results": {},
}


def test_the_table_is_made_of_the_results_that_are_kept() -> None:
    assert kept(), "rillfold bench codec --json | python -m bench.figures keep"
    _, _, rest = README.read_text().partition(BEGIN)
    assert rest.partition(END)[0] == table(kept())
    _, _, rest = README.read_text().partition(BEGIN_FIRST)
    assert rest.partition(END_FIRST)[0] == first_table(kept())


def test_what_the_readme_begins_with_was_measured() -> None:
    assert first_table(kept()).count("\n") == len(FIRST) + 2


def test_a_loss_is_told_like_a_gain() -> None:
    told = table([RESULT])
    assert "| us, per_s | them | 0.50 (0.40 to 0.61) | `rillfold bench turns` |" in told
    assert "Taken 2026-01-02 on 2 x made up." in told


def test_a_run_of_some_parts_leaves_the_others_as_they_were_taken() -> None:
    other = RESULT["ratios"] | {"other": RESULT["ratios"]["peer"] | {"ours": "we", "ratio": 3.0}}
    later = RESULT | {"date": "2026-02-01", "partial": True}
    told = table([merged(RESULT | {"ratios": other, "costs": {"waits, s": 0.25}}, later)])
    assert "| we, per_s | them | 3.00 (0.40 to 0.61) |" in told and "| waits, s | | 0.25 |" in told
    assert "Taken 2026-01-02 on" in told and "Taken 2026-02-01 on" in told
    assert merged(RESULT, later | {"partial": False})["date"] == "2026-02-01"
    assert "Taken 2026-01-02 on" not in table([merged(RESULT, later | {"partial": False})])


@pytest.mark.parametrize("result", kept(), ids=lambda result: str(result["bench"]))
def test_a_result_says_how_it_was_taken(result: dict[str, object]) -> None:
    assert result["runs"] and result["machine"] and result["date"]
    assert result["ratios"] or result["costs"], "exports are held to equality, and have nobody to be quicker than"
