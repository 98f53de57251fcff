"""What people see of a projection: the key whole, what says something first, and how far it knows the log."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from projections.company_tools import COMPANY_TOOLS, Tool
from projections.jobs import JOBS, Job
from projections.lora_adapters import Adapter
from projections.projection import Projection
from projections.training_runs import TRAINING_RUNS, Run
from rillfold.cli import rillfold as root
from rillfold.cli.adapters import lineage
from rillfold.cli.adapters.train import _settings, train
from rillfold.cli.adapters.trained import TrainedVersion
from rillfold.cli.company import status
from rillfold.cli.events import trace
from rillfold.cli.projections import rows_of
from rillfold.cli.terminal.plain import plain
from rillfold.cli.terminal.table import facts, table
from schemas.adapters import Evaluation
from schemas.company import CompanyRegistered
from schemas.envelope import Origin
from schemas.training import OffsetRange
from streams.history.story import StoryEvent
from streams.read_model.reads import EventPlace, ProjectedRow

KEY = "acme/0b9f3a52-7d0f-4bfb-9a55-0f3a0c6f8f11"


def row(state: msgspec.Struct, key: str) -> ProjectedRow:
    return ProjectedRow(key, msgspec.json.encode(state), EventPlace("company-data", 0, 1))


def shown(projection: Projection, rows: list[ProjectedRow], width: int) -> list[str]:
    return list(table(*rows_of.many(projection, rows, width), width))


def test_the_key_is_whole_and_what_says_nothing_is_left_out() -> None:
    job = Job(company="acme", job=KEY[5:], status="completed", task="Refund\norder A1", answer="Done [ok].", step=4)
    for width, expected in ((60, ["status", "step"]), (200, ["status", "task", "answer", "step"])):
        lines = shown(JOBS, [row(job, KEY)], width)
        heading = next(line for line in lines if "key" in line)
        assert heading.split() == ["key", *expected]
        assert any(KEY in line for line in lines)
    assert any("Done [ok]." in line and "Refund order A1" in line for line in lines)


def test_times_are_for_people_and_long_text_is_cut() -> None:
    tool = Tool(company="acme", name="refund", description="x " * 45, updated_at=1_700_000_000_000_000)
    lines = shown(COMPANY_TOOLS, [row(tool, "acme/refund")], 200)
    assert any("2023-11-14 22:13:20" in line and "x " * 19 + "x…" in line for line in lines)


def test_no_rows_are_no_trouble() -> None:
    assert any("key" in line for line in shown(COMPANY_TOOLS, [], 80))


def test_the_proof_counts_what_is_left() -> None:
    proof = rows_of._progress({"a": {0: 5}}, {"a": {0: 7, 1: 3}, "b": {0: 0}})
    assert proof["lag"] == {"a": {0: 2, 1: 3}, "b": {0: 0}}
    told = rows_of.told({"projection": "p", "version": 2} | proof)
    assert told == "p v2, 5 events behind the log; folded up to a/0:5"


def test_a_log_that_is_shorter_than_what_was_folded_of_it_is_not_taken_from_what_is_left() -> None:
    proof: Any = rows_of._progress({"a": {0: 5, 1: 1}}, {"a": {0: 2, 1: 4}}) | {"projection": "p", "version": 2}
    assert "3 events behind the log" in rows_of.told(proof) and rows_of.told(proof).endswith("the end of a/0")
    line = status._projections(status._behind([proof]), [proof])
    assert line.wrong and "a/0" in line.told


def test_lineage_goes_down_to_the_offsets() -> None:
    adapter = Adapter(
        company="acme", adapter="acme/default", version=2, sha256="f" * 64, method="lora", rank=16, alpha=32.0,
        ranges=(OffsetRange(topic="company-data", partition=1, start=3, stop=9),),
        evaluation=Evaluation(examples=60, before=0.0, after=0.983), verdict="no_gain", against=1,
    )  # fmt: skip
    printer = Console(width=120)
    with printer.capture() as text:
        printer.print(lineage._tree(row(adapter, "acme/default/2").value))
    assert "company-data/1 offsets [3, 9)" in text.get()
    assert "0.000 -> 0.983 exact on 60 requests" in text.get()
    assert "not promoted: no_gain, against version 1" in text.get()


@pytest.mark.parametrize(
    ("word", "meant"),
    [("a/b", ("a/b", None)), ("a/b@12", ("a/b", 12)), ("a/b/12", ("a/b", 12)), ("a/b/x", ("a/b@x", None))],
)
def test_a_version_is_spelled_as_everywhere_and_as_it_once_was(word: str, meant: tuple[str, int | None]) -> None:
    assert lineage._spelled(word) == meant


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"rank": 16, "target_rank": 0}, "rank 16 at first, 8 on average at the end"),
        ({"rank": 8, "target_rank": 8}, "rank 12 at first, 8 on average at the end"),
        ({"rank": "x"}, "rank 16"),
    ],
)
def test_lineage_tells_both_ranks_of_adalora(settings: dict[str, object], told: str) -> None:
    identity = msgspec.json.encode({"settings": settings}).decode()
    adapter = Adapter(company="a", adapter="a/b", version=1, method="adalora", rank=16, identity=identity)
    assert lineage._rank(row(adapter, "a/b/1").value) == told
    assert lineage._rank(row(msgspec.structs.replace(adapter, method="lora"), "a/b/1").value) == "rank 16"


def test_why_a_run_was_refused_is_in_a_table_of_little_room() -> None:
    run = Run(
        company="acme", run="r", status="refused", base_model="smollm2-135m-instruct", method="lora", reason="no_data"
    )
    assert any("no_data" in line for line in shown(TRAINING_RUNS, [row(run, "acme/r")], 60))


@pytest.mark.parametrize(
    ("given", "told"),
    [
        (["--set", "stepz=1"], "did you mean steps?"),
        (["--set", 'select.leave_outt=["c-17"]'], "'select.leave_outt': did you mean select.leave_out?"),
        (["--set", 'selct.agents=["sales"]'], "'selct': did you mean select?"),
        (["--set", "select.leave_out=c-17"], "select.leave_out: a list"),
        (["--set", 'select.leave_out=["c-17"]', "--set", "select={}"], "select is given already"),
        (["--set", "select=1", "--set", 'select.agents=["sales"]'], "has no fields"),
        (["--method", "lorra"], "unknown_method"),
        (["--role", "../x"], "can name no role"),
        (["--method", "lora", "--set", "target_rank=4"], "leave it out"),
    ],
)
def test_what_no_worker_would_take_is_not_asked_for(given: list[str], told: str) -> None:
    done = CliRunner().invoke(train, ["--company", "acme", *given])
    assert done.exit_code == 2 and told in " ".join(done.output.split())


def test_fields_of_a_setting_are_set_one_by_one() -> None:
    said = ['select.leave_out=["c-17"]', "steps=3", "select.outcomes=false", "tools=in-prompt"]
    select = {"leave_out": ["c-17"], "outcomes": False}
    assert _settings(said) == {"select": select, "steps": 3, "tools": "in-prompt"}


def test_what_was_trained_is_told_with_its_version_and_what_the_gate_said() -> None:
    run = Run(company="acme", run="r", status="completed", adapter="acme/default", sha256="f", seconds=1.0)
    refused = Adapter(company="acme", adapter="acme/default", version=3, verdict="malformed", event="e")
    made = TrainedVersion(run, refused)
    assert (made.told()["adapter"], made.told()["gate"]) == ("acme/default@3", "not promoted: malformed")
    assert {"adapter_version": 3, "promoted": False, "verdict": "malformed"}.items() <= made.facts().items()
    for remedy in ("lineage acme/default@3", "chat --company acme --version 3", "promote acme/default@3"):
        assert remedy in made.remedy
    better = TrainedVersion(run, msgspec.structs.replace(refused, promoted=True, verdict="better"))
    assert (better.told()["gate"], better.remedy) == ("promoted: better", "")


def test_a_trace_without_a_company_is_refused() -> None:
    done = CliRunner().invoke(trace.trace, ["j1"])
    assert done.exit_code == 2
    assert "--company" in done.output


def test_ids_of_a_lineage_stand_whole_in_a_narrow_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    adapter = Adapter(company="acme", adapter="acme/default", version=2, sha256="f" * 64, manifest="e" * 64)
    monkeypatch.setenv("COLUMNS", "40")

    async def read(*_: object) -> object:
        return row(adapter, "acme/default/2").value

    monkeypatch.setattr(lineage, "_read", read)
    said = CliRunner().invoke(lineage.lineage, ["acme/default"]).output.splitlines()
    assert [line for line in said if line.endswith("f" * 64)] and [line for line in said if line.endswith("e" * 64)]


def test_a_new_key_for_a_name_close_to_a_known_one_asks_whether_that_is_meant(tmp_path: Path) -> None:
    def made(company: str) -> str:
        done = CliRunner().invoke(root, ["key", "new", company], env={"RILLFOLD_DATA_DIR": str(tmp_path)})
        assert done.exit_code == 0 and done.stdout.startswith("rk_")
        return done.stderr

    assert made("bakery") == made("bakery") == made("newcomer") == ""
    assert "no company 'bakry' is registered" in (told := made("bakry")) and "Is 'bakery' meant?" in told


HOSTILE = "[/x] [bold]\x1b]0;owned\x07\x1b[2J\u202e\x9b31m\rdone"


def test_words_of_a_record_neither_break_nor_drive_the_terminal() -> None:
    fields = {"run": HOSTILE, "sha256": HOSTILE, "method": HOSTILE, "base_model": HOSTILE, "manifest": HOSTILE}
    ranges = (OffsetRange(topic=HOSTILE, partition=0, start=0, stop=1),)
    adapter = Adapter(company="acme", adapter=f"acme/{HOSTILE}", version=1, ranges=ranges, **fields)
    job = Job(company="acme", job=HOSTILE, status="completed", task=HOSTILE, answer=HOSTILE)
    event = CompanyRegistered(id="1", correlation=HOSTILE, company="acme", time=1, name="n", causation=None)
    printer = Console(width=400, force_terminal=False)
    with printer.capture() as text:
        printer.print(lineage._tree(row(adapter, "acme/default/1").value))
        printer.print(trace.tree([StoryEvent(Origin("t", 0, 0), 1, event)]))
    of_job = row(job, f"acme/{HOSTILE}")
    lines = [*shown(JOBS, [of_job], 400), *facts(rows_of.one(JOBS, of_job), 400)]
    for said in (text.get(), "".join(lines)):
        assert "[/x] [bold]" in said
        assert not set(said) & set("\x1b\x07\x9b\r\u202e")


@given(st.text())
def test_what_is_shown_is_only_ever_what_can_be_read(text: str) -> None:
    assert all(c.isprintable() or c in "\n\t\u200d" for c in plain(text))
    assert plain(plain(text)) == plain(text)
