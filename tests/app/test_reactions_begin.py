"""Where a reaction begins, and goes on: what its group has committed decides it, and who finds nothing says so."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from rillfold.testing.driver import Driver
from schemas.memory import MemoryNoted
from streams.log.memory import MemoryLog
from tests.app.test_reactions import BEGIN, said


async def emitted(log: MemoryLog, kind: str, app: Any = ()) -> Sequence[str]:
    """By all that ever ran on this log, after one event more."""
    async with Driver(log, app) as d:
        await d.send(said(kind))
        await d.settle()
        events = await d.events("company-data")
    return sorted(each.memory for each in events if isinstance(each, MemoryNoted))


@pytest.mark.parametrize(
    ("begin", "after", "told"),
    [
        ("now", ["one", "two"], "events before are not reacted to"),
        (
            "first",
            ["away", "one", "one", "two"],
            "all events from there on are reacted to, also those that were before",
        ),
    ],
)
async def test_who_begins_with_nothing_committed_says_so_by_name(
    release: Any, caplog: pytest.LogCaptureFixture, begin: str, after: Sequence[str], told: str
) -> None:
    """Kafka forgets a group whose members are gone for `offsets.retention.minutes`: it begins as one that never was."""
    log, app = MemoryLog(), release(BEGIN.format(begin=begin, version=1))
    assert await emitted(log, "one", app) == ["one"]
    assert "shop/note.v1: group" not in caplog.text, "nothing ever stood in its topic"
    await emitted(log, "away")
    (where,) = [n for n, end in (await log.ends("company-data")).items() if end]
    first, end = (await log.starts("company-data"))[where], (await log.ends("company-data"))[where]
    del log._groups["rillfold-react-shop-note-v1"]
    assert await emitted(log, "two", app) == after
    (line,) = [each for each in caplog.messages if each.startswith("shop/note.v1: group rillfold-react-shop-note-v1")]
    assert "has committed nothing on company-data: " in line and "offsets.retention.minutes" in line
    assert f"company-data/{where}/{end if begin == 'now' else first}" in line and line.endswith(told)
    await emitted(log, "three", app)
    assert caplog.text.count(line) == 1, "it has committed by then"
