"""Datasets of rule 3 from the command line: narrowed, as Parquet, proved, and never over another."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from rillfold.cli import rillfold
from rillfold.embedded.stack import Endpoints
from schemas.topics import BY_NAME, TopicNames
from streams.log.kafka.admin import wanted
from streams.log.kafka.log import KafkaLog
from tests.support.learning import said, talk
from tests.support.worker import external

Say = Callable[..., Any]


@pytest.fixture
async def say(
    stack: Endpoints, names: TopicNames, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Say]:
    """`rillfold dataset ...`, over the records of two companies."""
    for name, value in external(stack.bootstrap_servers, names.prefix, tmp_path / "data").items():
        monkeypatch.setenv(name, value)
    records = [
        talk(f"Look up C-{n}", ("look", f'{{"a": {n}}}'), "Fine.", entity="xy"[n % 2], id=f"e{n}") for n in range(12)
    ]
    records += [
        talk("Sell it", "Sold.", agent="sales", time=5_000_000),
        talk("Hello", "Hi.", company="globex"),
        said("feedback.given", about="nothing", good=True),
        said("feedback.given", about="e0", good=False),
        said("tool.returned", call="c", job="e1", tool="look", ok=False),
    ]
    async with KafkaLog(stack.bootstrap_servers) as log:
        await log.create(wanted(names, [BY_NAME["company-data"], BY_NAME["tool-result"]]))
        await log.append([record._replace(topic=names.wire(record.topic), timestamp=None) for record in records])

    async def run(*words: str, fails: str = "", lines: bool = False) -> Any:
        done: Result = await asyncio.to_thread(CliRunner().invoke, rillfold, ["dataset", *words])
        if not fails:
            assert done.exit_code == 0, (done.output, done.exception)
            return done.stdout if lines else json.loads(done.stdout)
        told = " ".join(f"{done.output} {done.exception}".split())
        assert done.exit_code and fails in told and "Traceback" not in done.output, told
        return told

    yield run


def lying(folder: str | Path) -> list[str]:
    return sorted(path.name for path in Path(folder).iterdir())


async def test_a_narrowed_dataset_is_proved_from_its_manifest_alone(say: Say, tmp_path: Path) -> None:
    folder = tmp_path / "set"
    narrow = ("--agent", "desk", "--type", "conversation.ingested", "--leave-out", "y", "--since", "1970-01-01")
    built = await say("build", "--company", "acme", "--out", str(folder), "--parquet", "--json", *narrow)
    manifest = built["manifest"]
    assert manifest["select"] == {
        "agents": ["desk"],
        "types": ["conversation.ingested"],
        "since": 0,
        "leave_out": ["y"],
    }
    rows = [json.loads(line) for line in (folder / "rows.jsonl").read_bytes().splitlines()]
    assert manifest["trained"] + manifest["held_out"] + manifest["bad"] >= len(rows) == 12
    assert manifest["bad"] == 1
    assert built["noticed"] == {
        "left_out": {"y": 6},
        "taught_by": {"desk": 6},
        "agents": ["desk", "sales"],
        "unheard": 1,
        "missing": [],
        "failures": [],
    }
    first = (folder / "rows.jsonl").read_bytes()
    (folder / "rows.jsonl").write_bytes(first.replace(b'"content":"Fine."', b'"content":"Bad.."', 1))
    number = next(n for n, line in enumerate(first.splitlines(), start=1) if b'"content":"Fine."' in line)
    await say("verify", str(folder), "--offline", fails="without --offline")
    await say("verify", str(folder), fails=f"line {number} was altered")
    (folder / "rows.jsonl").write_bytes(first)
    assert lying(folder) == ["manifest.json", "provenance.jsonl", "rows.jsonl", "rows.parquet"]
    places = (folder / "provenance.jsonl").read_bytes()
    (folder / "provenance.jsonl").write_bytes(places.replace(b"company-data", b"company-date", 1))
    await say("verify", str(folder), fails="provenance.jsonl: line 1 is not what the log gives")
    (folder / "provenance.jsonl").unlink()
    await say("verify", str(folder), fails="provenance.jsonl: No such file or directory. Build")
    (folder / "provenance.jsonl").write_bytes(places)
    assert await say("verify", str(folder), "--json") == built
    everything = await say(
        "build", "--company", "acme", "--out", str(tmp_path / "all"), "--json", "--until", "2099-01-01"
    )
    assert everything["manifest"]["bad"] == 2, "a tool's reply counts, too"
    unheard = await say(
        "build", "--company", "acme", "--out", str(tmp_path / "all"), "--json", "--no-outcomes", "--force"
    )
    assert unheard["manifest"]["bad"] == 0

    from rillfold.cli.adapters import parquet

    assert b"".join(parquet.lines(folder / "rows.parquet")) == (folder / "rows.jsonl").read_bytes()
    (folder / "rows.parquet").write_bytes((tmp_path / "all" / "rows.jsonl").read_bytes())
    await say("verify", str(folder), "--offline", fails="rows.parquet")


async def test_what_cannot_be_built_is_said_with_its_remedy_and_changes_nothing(say: Say, tmp_path: Path) -> None:
    folder = str(tmp_path / "set")
    first = await say("build", "--company", "acme", "--out", folder, "--json")
    assert await say("build", "--company", "acme", "--out", folder, "--json") == first, "the same again is no harm"
    build = ("build", "--company", "acme", "--out", folder)
    await say("build", "--company", "nobody", "--out", folder, fails="rillfold query companies")
    await say("build", "--company", "globex", "--out", folder, fails="--force")
    await say("build", "--company", "nobody", "--out", str(tmp_path / "new"), fails="rillfold query companies")
    assert not (tmp_path / "new").exists()
    await say(*build, "--range", "9:0:1", fails="no 9")
    await say(*build, "--range", "0:1:0", fails="is no range")
    await say(*build, "--range", "0:0:1", "--range", "0:0:2", fails="stands twice")
    await say(*build, "--range", "0:0:100000", fails="holds offsets")
    await say(*build, "--range", "tool-call:0:0:1", fails="holds no training data")
    await say(*build, "--rule", "2", "--agent", "desk", fails="Rule 2")
    await say(*build, "--since", "yesterday", fails="is no time")
    await say(*build, "--since", "2026-11-02", "--until", "2026-11-02", fails="is not before --until")
    await say(*build, "--leave-out", "x", "--leave-out", "xx", "--force", fails="--leave-out 'xx': no event")
    told = await say(*build, "--agent", "desk", "--agent", "nobody", "--force", fails="--agent 'nobody': no answer")
    assert "there: desk, sales" in told
    assert await say("verify", folder, "--json") == first
    assert lying(folder) == ["manifest.json", "provenance.jsonl", "rows.jsonl"]
    lines = await say("build", "--company", "acme", "--out", f"{folder}-2", "--since", "2099-01-01", lines=True)
    assert "0 to train on" in lines and "nothing to train on" in lines and "2 judgements" in lines
    lines = await say("build", "--company", "acme", "--out", f"{folder}-3", "--leave-out", "x", lines=True)
    assert "left out x: 6 events" in lines and "nothing to train on" not in lines
    old = await say(*build, "--rule", "2", "--force", "--json")
    assert old["manifest"]["rule_version"] == 2 and "select" not in old["manifest"]
    assert await say("verify", folder, "--json") == old
    assert lying(folder) == ["manifest.json", "rows.jsonl"]
