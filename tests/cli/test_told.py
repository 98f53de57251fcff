"""`rillfold projection` to people: the answer first, and nothing of it cut or left out."""

from __future__ import annotations

from types import ModuleType
from typing import Any

import pytest
from click.testing import CliRunner

from rillfold.cli import rillfold
from rillfold.cli.company import registered
from rillfold.cli.events import dlq
from rillfold.cli.projections import projection, told

DIGEST = "ab" * 32
FACTS = {"projection": "companies", "version": 1, "rows": 3, "events": 4, "refused": 0, "unreadable": 0}
REFUSAL = {
    "topic": "automation-job", "partition": 3, "offset": 17, "projection": "company_automation_jobs", "version": 3,
    "company": "evil", "event": "e" * 128, "reason": "row_too_large", "detail": "x " * 200,
}  # fmt: skip


def digests(**more: Any) -> list[str]:
    return list(told.digests([FACTS | {"served": DIGEST} | more]))


def test_a_digest_stands_whole_on_a_line_of_its_own_within_80_columns() -> None:
    assert digests() == ["companies v1: as it is served", "    3 rows of 4 events", f"    served   {DIGEST}"]
    proven = digests(untaken=0, refolded=DIGEST, seconds=0.5)
    assert proven[0] == "companies v1: the fold of the log" and proven[1] == "    3 rows of 4 events, 0.5 s"
    assert proven[-1] == f"    refolded {DIGEST}" and max(map(len, proven)) <= 80


def test_what_differs_says_so_first() -> None:
    assert digests(untaken=0, refolded="cd" * 32, seconds=0)[0] == "companies v1: NOT the fold of the log"
    untaken = digests(untaken=2, refolded=DIGEST, seconds=0)
    assert "NOT" in untaken[0] and "2 untaken" in untaken[1]


def test_a_refusal_says_why_before_what_and_where() -> None:
    why, what, where = told.refusals([REFUSAL])
    assert why == f"row_too_large: {REFUSAL['detail']}"
    assert "company_automation_jobs v3, company evil" in what and "e" * 128 in what
    assert where.strip() == "automation-job/3/17"
    assert list(told.refusals([])) == ["Nothing is refused."]


@pytest.mark.parametrize(
    ("line", "module"),
    [
        (["projection", "refused", "memories", "--company", "amce"], projection),
        (["dlq", "redrive", "--company", "amce", "--yes"], dlq),
        (["dlq", "list", "--company", "amce"], dlq),
    ],
)
def test_where_nothing_is_found_the_company_that_was_named_is_doubted(
    line: list[str], module: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def known(*_: object) -> list[str]:
        return ["acme"]

    monkeypatch.setattr(module, "in_log", lambda _: [])
    monkeypatch.setattr(registered, "_known", known)
    said = CliRunner().invoke(rillfold, line)
    assert said.exit_code == 0
    assert "no company 'amce' is registered" in said.stderr and "Is 'acme' meant?" in said.stderr


def test_the_list_has_every_projection_with_all_its_topics() -> None:
    said = CliRunner().invoke(rillfold, ["projection", "list"]).output
    (jobs,) = [line for line in said.splitlines() if line.startswith("company_automation_jobs ")]
    assert jobs.split() == ["company_automation_jobs", "v3", "automation-job", "inference-result", "tool-result"]
