"""Recorded logs, folded again by today's code: old questions keep their old answers."""

from __future__ import annotations

import json

import pytest

from projections.catalog import PROJECTIONS
from tests.upgrade.record import DIGESTS, HISTORIES, digests, label, lines, one_by_one

KNOWN = json.loads(DIGESTS.read_text())


@pytest.mark.parametrize("history", sorted(path.stem for path in HISTORIES.glob("*.jsonl")))
@pytest.mark.parametrize("projection", PROJECTIONS.values(), ids=lambda projection: projection.name)
async def test_a_fold_answers_as_it_did(history: str, projection) -> None:
    found = (await digests(lines(HISTORIES / f"{history}.jsonl")))[label(projection)]
    should = KNOWN[history].get(label(projection))
    assert should is not None, (
        f"{label(projection)} is new: run `python tests/upgrade/record.py` and commit digests.json"
    )
    assert found == should, (
        f"the fold of {projection.name} gives other rows for {history}.jsonl than version {projection.version} did. "
        f"Rows that are stored were folded the old way: raise `version` in projections/{projection.name}.py's "
        f"Projection, so that it is folded anew beside the old one; then run `python tests/upgrade/record.py`."
    )


@pytest.mark.parametrize("history", sorted(path.stem for path in HISTORIES.glob("*.jsonl")))
async def test_the_engine_agrees_with_folding_one_event_after_another(history: str) -> None:
    recorded = lines(HISTORIES / f"{history}.jsonl")
    assert await digests(recorded) == await one_by_one(recorded)


def test_a_digest_notices_one_changed_row() -> None:
    values = [value for history in KNOWN.values() for value in history.values()]
    assert len(set(values)) > len(PROJECTIONS)
