"""Listings in terminals of any width: an id stands whole on one line, and nothing of a row is hidden."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rillfold.cli.terminal.table import facts, table

RUN = "0b9f3a52-7d0f-4bfb-9a55-0f3a0c6f8f11"
HEADS = ("status", "what came of it", "for", "since", "run")
WHY = "too_much 30000 steps of 8 are 240000 texts; a run here learns from 20000."
ROWS = [("refused", WHY, "acme/default", "2026-11-27 04:00:00", RUN), ("completed", "", "acme/ops", "", "r2")]


def test_what_fits_is_a_table_with_a_line_for_each_row() -> None:
    lines = list(table(HEADS, ROWS, 200))
    assert len(lines) == 3 and lines[0].split("  ")[0] == "status" and lines[1].endswith(RUN)
    assert lines == list(table(HEADS, ROWS, 0)), "and so is what nobody looks at"


def test_the_sentences_give_way_first() -> None:
    lines = list(table(HEADS, ROWS, 120))
    assert max(map(len, lines)) <= 120 and len(lines) > 3
    assert RUN in lines[1] and "refused" in lines[1]
    assert all(word in " ".join(lines) for word in WHY.split())


@pytest.mark.parametrize("width", [80, 40])
def test_where_no_table_fits_each_row_is_a_paragraph_that_begins_with_its_answer(width: int) -> None:
    lines = list(table(HEADS, ROWS, width))
    assert max(map(len, lines)) <= width
    assert lines[0] == "refused" and "completed" in lines
    assert [line for line in lines if line.endswith(RUN)], lines
    told = " ".join(" ".join(lines).split())
    assert WHY in told and told.count("what came of it") == 1, "what says nothing is left out"


def test_a_word_that_is_wider_than_its_column_could_be_makes_paragraphs() -> None:
    lines = list(table(("status", "why", "run"), [("failed", f"bad_artifact {'f' * 64} is none.", RUN)], 100))
    assert max(map(len, lines)) <= 100 and lines[0] == "failed"


WORD = st.text("ab-c/\u4e2d", min_size=1, max_size=50)
CELL = st.lists(WORD, max_size=9).map(" ".join)


@given(
    st.integers(1, 4).flatmap(lambda n: st.lists(st.lists(CELL, min_size=n, max_size=n), max_size=4)),
    st.integers(1, 200),
)
def test_no_word_is_ever_broken_or_lost(rows: list[list[str]], width: int) -> None:
    heads = [f"h{n}" for n in range(len(rows[0]) if rows else 1)]
    there = " ".join(table(heads, rows, width)).split()
    for word in (word for row in rows for cell in row for word in cell.split()):
        assert word in there


def test_facts_stand_beside_their_names_or_under_them() -> None:
    assert list(facts([("run", RUN), ("reason", ""), ("status", "done")], 40)) == [
        "  run",
        f"  {RUN}",
        "  status  done",
    ]
