"""Recorded logs, folded again by today's code: old questions keep their old answers."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from projections.catalog import PROJECTIONS
from projections.digest import digest
from tests.upgrade.record import DIGESTS, HISTORIES, absent, digests, folded, label, lines, one_by_one

KNOWN = json.loads(DIGESTS.read_text())
PATHS = sorted(HISTORIES.glob("*.jsonl"))
LABELS = {label(projection): projection for projection in PROJECTIONS.values()}


@pytest.mark.parametrize("path", PATHS, ids=lambda path: path.stem)
async def test_a_fold_answers_as_it_did(path: Path) -> None:
    found, should = digests(await folded(lines(path))), KNOWN[path.stem]
    for name, projection in LABELS.items():
        assert not (found.get(name) and name not in should), (
            f"{name} is new, or takes what it did not: run `python tests/upgrade/record.py` and commit digests.json"
        )
        assert found.get(name) == should.get(name), (
            f"the fold of {projection.name} gives other rows for {path.name} than version {projection.version} did. "
            f"Rows that are stored were folded the old way: raise `version` in projections/{projection.name}.py's "
            f"Projection, so that it is folded anew beside the old one; then run `python tests/upgrade/record.py`."
        )


@pytest.mark.parametrize("path", PATHS, ids=lambda path: path.stem)
async def test_the_engine_agrees_with_folding_one_event_after_another(path: Path) -> None:
    recorded = lines(path)
    assert await folded(recorded) == one_by_one(recorded)


def test_every_event_and_version_that_is_folded_stands_in_a_history() -> None:
    assert absent() == [], "run `python tests/upgrade/record.py`: it writes them into a history of their own"


@pytest.mark.parametrize("name", LABELS)
def test_a_digest_notices_one_changed_row_of_every_projection(name: str) -> None:
    """Some history has rows of it, and none of them can change unseen."""
    histories = [one_by_one(lines(path))[name] for path in PATHS if name in KNOWN[path.stem]]
    assert histories, f"no history has an event that {name} folds"
    for rows in histories:
        before = digest(rows)
        for partition, key in [(partition, key) for partition, part in rows.items() for key in part]:
            row = rows[partition].pop(key)
            assert digest(rows) != before
            other = LABELS[name].initial(key)
            if other != row:
                assert digest({**rows, partition: {**rows[partition], key: other}}) != before
            rows[partition][key] = row
        assert digest(rows) == before
