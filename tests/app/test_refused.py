"""An application that cannot be taken is refused before anything starts: by its name, the place and the remedy."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from rillfold.app.errors import BadApp
from rillfold.app.found import with_apps
from rillfold.app.installed import OURS, installed
from rillfold.settings import Settings, from_env
from schemas.errors import Stop

FOLD = '@app.projection("revenue", version=1)\n'
WRONG = {
    "raises": ("1 / 0\n", ["does not import", ":13 raises ZeroDivisionError"]),
    "does_not_parse": ("def (:\n", ["does not import", ":13 raises SyntaxError"]),
    "exits": ("raise SystemExit(0)\n", ["does not import", "SystemExit"]),
    "imports_what_is_nowhere": ("import nowhere_at_all\n", ["does not import", "nowhere_at_all"]),
    "name_of_ours": (
        '@app.projection("companies")\ndef f(state: Total, event: RecordIngested) -> Total: ...\n',
        [":13", "'companies'", "Rillfold has one"],
    ),
    "name_twice": (
        2 * (FOLD + "def f(state: Total, event: RecordIngested) -> Total: ...\n"),
        [":15", "'revenue'", "shop has one already"],
    ),
    "name_of_a_table": (
        '@app.projection("positions")\ndef f(state: Total, event: RecordIngested) -> Total: ...\n',
        [":13", "'positions'", "no table of the read model"],
    ),
    "name_of_a_group": (
        '@app.projection("train")\ndef f(state: Total, event: RecordIngested) -> Total: ...\n',
        [":13", "'train'", "no group of other workers"],
    ),
    "version_none": (
        '@app.projection("revenue", version=0)\ndef f(state: Total, event: RecordIngested) -> Total: ...\n',
        [":13", "version 0", "count from 1"],
    ),
    "no_types": (FOLD + "def f(state, event): ...\n", [":13", "says the types of both"]),
    "another_type_returned": (
        FOLD + "def f(state: Total, event: RecordIngested) -> int: ...\n",
        [":13", "takes Total and returns int"],
    ),
    "no_event": (FOLD + "def f(state: Total, event: str) -> Total: ...\n", [":13", "folds str", "no event"]),
    "a_type_that_is_nowhere": (
        FOLD + 'def f(state: "Totale", event: RecordIngested) -> "Totale": ...\n',
        [":13", "Totale", "cannot be read"],
    ),
    "not_frozen": (
        "class Sum(msgspec.Struct):\n    n: int = 0\n" + FOLD
        + "def f(state: Sum, event: RecordIngested) -> Sum: ...\n",
        [":13", "Sum", "is not frozen"],
    ),
    "a_list_in_a_state": (
        "class Sum(msgspec.Struct, frozen=True):\n    days: list[str] = []\n" + FOLD
        + "def f(state: Sum, event: RecordIngested) -> Sum: ...\n",
        [":13", "Sum.days", "tuple[..., ...]"],
    ),
    "a_dict_deep_in_a_state": (
        "class Day(msgspec.Struct, frozen=True):\n    n: dict[str, int] = {}\n"
        "class Sum(msgspec.Struct, frozen=True):\n    days: tuple[Day | None, ...] = ()\n" + FOLD
        + "def f(state: Sum, event: RecordIngested) -> Sum: ...\n",
        [":13", "Day.n", "dict[str, int]"],
    ),
    "no_default": (
        "class Sum(msgspec.Struct, frozen=True):\n    n: int\n" + FOLD
        + "def f(state: Sum, event: RecordIngested) -> Sum: ...\n",
        [":13", "Sum.n", "default"],
    ),
    "a_column_of_every_view": (
        "class Sum(msgspec.Struct, frozen=True):\n    topic: str = ''\n" + FOLD
        + "def f(state: Sum, event: RecordIngested) -> Sum: ...\n",
        [":13", "Sum.topic", "rename"],
    ),
    "merged_by_a_word_that_is_none": (
        '@app.projection("revenue", merge={"cents": "mean"})\n'
        "def f(state: Total, event: RecordIngested) -> Total: ...\n",
        [":10", "cents of Total by 'mean'", "sum, min, max"],
    ),
    "a_coroutine": (
        FOLD + "async def f(state: Total, event: RecordIngested) -> Total: ...\n",
        [":13", "no plain function"],
    ),
    "a_projection_without_parentheses": (
        "@app.projection\ndef f(state: Total, event: RecordIngested) -> Total: ...\n",
        [":13", '@app.projection("a_name")', "in parentheses"],
    ),
    "an_event_without_parentheses": ("@app.event\nclass Paid: ...\n", ['@app.event("a.type")', "in parentheses"]),
    "a_reaction_without_parentheses": (
        "@app.reaction\nasync def f(event: RecordIngested, emit: Emit) -> None: ...\n",
        [":13", "@app.reaction()", "in parentheses"],
    ),
    "no_function": (FOLD + "class Fold: ...\n", [":13", "no plain function"]),
    "two_rules_of_spreading": (
        FOLD + "def f(state: Total, event: RecordIngested | InferenceCompleted) -> Total: ...\n",
        [":13", "company-data, inference-result", "different rules"],
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", WRONG)
def test_what_is_wrong_is_named_with_its_place(case: str, load: Any) -> None:
    text, told = WRONG[case]
    with pytest.raises(BadApp) as refused:
        load(text)
    assert not [each for each in told if each not in str(refused.value)], refused.value


def test_what_is_right_is_there_beside_ours(load: Any) -> None:
    found = load(FOLD + "def f(state: Total, event: CompanyRegistered | RecordIngested) -> Total: ...\n").projections
    assert set(found) == {*OURS.projections, "revenue"}
    assert found["revenue"].topics == ("company-data",)


@pytest.mark.parametrize("word", ["no_such_module_here", "json", "json:loads", "json.decoder.app"])
def test_a_name_that_leads_to_no_application(word: str) -> None:
    with pytest.raises(BadApp, match=f"RILLFOLD_APP={word}"):
        installed(Settings(app=word))


@pytest.mark.parametrize(("word", "is_meant"), [("shopp", "'shop'"), ("shop.ap", "'shop.app'"), ("Shop.app", "'shop'")])
def test_a_mistyped_name_is_guessed(word: str, is_meant: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "shop").mkdir()
    (tmp_path / "shop" / "__init__.py").touch()
    (tmp_path / "shop" / "app.py").touch()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path, str(tmp_path)])
    with pytest.raises(BadApp, match=f"Is {is_meant} meant"):
        installed(Settings(app=word))


def test_a_name_that_is_none() -> None:
    with pytest.raises(Stop, match="RILLFOLD_APP"):
        from_env({"RILLFOLD_APP": "../shop"})


@pytest.mark.parametrize("command", ["worker sink", "worker react", "query companies", "up --workers"])
def test_a_command_ends_with_one_line_and_1(command: str, tmp_path: Path) -> None:
    (tmp_path / "broken_shop.py").write_text("from rillfold import App\napp = Ap('shop')\n")
    provider = "embedded" if command == "up --workers" else "external"
    surroundings = {**os.environ, "RILLFOLD_APP": "broken_shop", "RILLFOLD_PROVIDER": provider,
                    "RILLFOLD_BOOTSTRAP_SERVERS": "127.0.0.1:9", "RILLFOLD_POSTGRES_DSN": "postgresql://127.0.0.1:9/x",
                    "RILLFOLD_DATA_DIR": str(tmp_path)}  # fmt: skip
    line = [sys.executable, "-P", "-m", "rillfold", *command.split()]
    ran = subprocess.run(line, cwd=tmp_path, env=surroundings, capture_output=True, text=True, timeout=60)
    told = ran.stderr.strip().splitlines()
    assert ran.returncode == 1, ran.stderr
    assert "Traceback" not in ran.stderr
    assert "RILLFOLD_APP=broken_shop does not import" in told[-1] and "broken_shop.py:2 raises NameError" in told[-1]
    assert [each.name for each in tmp_path.iterdir() if each.name != "__pycache__"] == ["broken_shop.py"]


EVENT = "@app.event({})\nclass Paid:\n    {}\n"
WRONG_EVENTS = {
    "name_of_ours": (EVENT.format('"text.ingested"', "n: int"), ["'text.ingested'", "there already"]),
    "name_twice": (EVENT.format('"a.paid"', "n: int") + EVENT.format('"a.paid"', "m: int"), ["'a.paid'", "in shop"]),
    "name_of_no_form": (EVENT.format('"Paid"', "n: int"), ["'Paid'", "order.paid"]),
    "version_none": (EVENT.format('"b.paid", version=0', "n: int"), ["version 0", "count from 1"]),
    "another_topic": (EVENT.format('"c.paid", topic="tool-call"', "n: int"), ["'tool-call'", "company-data"]),
    "field_of_the_envelope": (EVENT.format('"d.paid"', "company: str"), ["'company'", "envelope"]),
    "a_dict": (EVENT.format('"e.paid"', "lines: dict[str, int]"), ["Paid.lines", "no event can hold"]),
    "text_without_kind_in_a_struct": (
        "class Line(msgspec.Struct, frozen=True):\n    sku: str\n" + EVENT.format('"f.paid"', "line: Line"),
        ["Line.sku", "Text of schemas.words"],
    ),
    "a_struct_in_itself": (
        "class Line(msgspec.Struct, frozen=True):\n    next: 'Line | None' = None\n"
        + EVENT.format('"o.paid"', "line: Line"),
        ["Line holds itself"],
    ),
    "a_name_that_avro_has_not": (EVENT.format('"p.paid"', "größe: int"), ["'größe'", "ASCII"]),
    "a_default_of_another_type": (EVENT.format('"q.paid"', "n: int = 'many'"), ["'q.paid'", "a default is"]),
    "a_default_that_json_has_not": (EVENT.format('"r.paid"', "n: int = object()"), ["'r.paid'", "a default is"]),
    "not_on_record": (EVENT.format('"g.paid"', "n: int"), ["g.paid.v1", "rillfold app record"]),
}  # fmt: skip


@pytest.mark.parametrize("case", WRONG_EVENTS)
def test_an_event_that_is_wrong_is_named_with_its_place(case: str, refused: Any) -> None:
    refused(*WRONG_EVENTS[case])


REACT = "@app.reaction({})\n{}\n"
FORM = "async def note(event: RecordIngested, emit: Emit) -> None: ..."
WRONG_REACTIONS = {
    "no_coroutine": (REACT.format("", "def note(event: RecordIngested, emit: Emit) -> None: ..."), ["coroutine"]),
    "a_generator": (
        REACT.format("", "async def note(event: RecordIngested, emit: Emit) -> None: yield"),
        ["coroutine"],
    ),
    "no_function": (REACT.format("", "class Note: ..."), ["coroutine"]),
    "no_type": (REACT.format("", "async def note(event, emit) -> None: ..."), ["says its type"]),
    "no_emit": (REACT.format("", "async def note(event: RecordIngested) -> None: ..."), ["and emit"]),
    "another_name_for_emit": (
        REACT.format("", "async def note(event: RecordIngested, say: Emit) -> None: ..."),
        ["and emit"],
    ),
    "another_emit": (
        REACT.format("", "async def note(event: RecordIngested, emit: int) -> None: ..."),
        ["emit is int", "rillfold.Emit"],
    ),
    "no_event": (REACT.format("", "async def note(event: Total, emit: Emit) -> None: ..."), ["Total", "no event"]),
    "returns": (
        REACT.format("", "async def note(event: RecordIngested, emit: Emit) -> int: ..."),
        ["returns int", "nothing"],
    ),
    "another_topic": (
        REACT.format("", "async def note(event: InferenceCompleted, emit: Emit) -> None: ..."),
        ["InferenceCompleted", "topic='inference-result'"],
    ),
    "letters": (REACT.format('topic="dead-letter"', FORM), ["'dead-letter'", "Take one of"]),
    "no_topic": (REACT.format('topic="orders"', FORM), ["'orders'", "Take one of"]),
    "version_none": (REACT.format("version=0", FORM), ["version 0", "count from 1"]),
    "begins_at_noon": (REACT.format('begin="noon"', FORM), ["'noon'", "first"]),
    "takes_a_day": (REACT.format("seconds=86400", FORM), ["86400 seconds", "at most 30"]),
    "takes_nothing": (REACT.format("seconds=0", FORM), ["0 seconds"]),
    "a_name_that_is_none": (REACT.format("", FORM.replace("note", "Note")), ["'Note'", "lower letters"]),
    "name_twice": (2 * REACT.format("", FORM), ["'note'", "shop has one already"]),
}  # fmt: skip


@pytest.mark.parametrize("case", WRONG_REACTIONS)
def test_a_reaction_that_is_wrong_is_named_with_its_place(case: str, refused: Any) -> None:
    refused(*WRONG_REACTIONS[case])


def test_a_reaction_that_is_right_is_there(load: Any) -> None:
    (found,) = load(REACT.format("", FORM)).reactions
    assert (str(found), found.topic, found.begin) == ("shop/note.v1", "company-data", "now")


def test_two_applications_of_one_name_would_share_their_groups(release: Any) -> None:
    with pytest.raises(BadApp, match="Two applications are named 'shop'"):
        with_apps([release(REACT.format("", FORM)) for _ in range(2)])
