"""A word of a closed set that is mistyped is told with the one that is meant."""

from __future__ import annotations

import os

import pytest
from click.testing import CliRunner

from rillfold.cli import rillfold
from schemas.near import meant, near

KAFKA = {"RILLFOLD_PROVIDER": "external", "RILLFOLD_BOOTSTRAP_SERVERS": "127.0.0.1:9"}


@pytest.mark.parametrize(
    ("words", "guess"),
    [
        (["runz"], "runs"),
        (["topics", "lsit"], "list"),
        (["worker", "srve"], "serve"),
        (["adapters", "promot"], "promote"),
        (["produce", "company-dta", os.devnull], "company-data"),
        (["produce", "company-data", os.devnull, "--type", "text.ingestd"], "text.ingested"),
        (["query", "jbos_company_automation"], "company_automation_jobs"),
        (["projection", "digest", "compnies"], "companies"),
        (["dlq", "list", "--topic", "tool-cal"], "tool-call"),
        (["bench", "fol"], "fold"),
    ],
)
def test_the_nearest_is_asked_about(words: list[str], guess: str) -> None:
    done = CliRunner().invoke(rillfold, words, env=KAFKA)
    assert done.exit_code and f"Is {guess!r} meant?" in f"{done.output} {done.exception}"


def test_nothing_is_guessed_where_nothing_is_close() -> None:
    assert meant("zzz", ["runs", "train"]) == ""
    done = CliRunner().invoke(rillfold, ["zzz"])
    assert "No such command 'zzz'." in done.output and "meant" not in done.output


def test_case_is_no_distance_and_a_long_word_no_work() -> None:
    assert near("ACME", ["globex", "acme"]) == ["acme"]
    assert near("x" * 10_000_000, ["acme"]) == []
