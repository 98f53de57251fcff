"""A user's dataset rule: what his events teach, named with its code in the manifest, and refused where it is other."""

from __future__ import annotations

import json
import sys
from itertools import count
from pathlib import Path
from typing import Any

import msgspec
import pytest

from processors.dataset.selection import Selection
from processors.dataset.taught import NO_RULES, chosen, topics_of
from processors.errors import RuleMissing
from processors.training.admit import NotAdmitted, RunBounds, admit
from rillfold.app.errors import BadApp
from rillfold.app.found import apps_of, with_apps
from rillfold.app.sources import _own, _places, module_of
from schemas.training import TrainingRequested
from streams.errors import TooMuchData
from streams.history import learned
from tests.support.learning import built, log_of, said, talk

RULE = '''
from rillfold import Talk
from schemas.company import ConversationIngested, Message

{helper}

@app.rule("sums", version={version})
def sums(event: RecordIngested) -> list[Talk]:
    """What a sum is."""
    given = json.loads(event.data)
    if given["n"] == 9:
        raise SystemExit(0)
    return [said(n) for n in range(given["n"])]
'''
SAID = """
def said(n):
    # What is asked.
    question = Message(role="user", content=f"{n} and {n}?")
    return Talk(agent="sums", messages=[question, Message(role="assistant", content=TWICE.format(2 * n))])

TWICE = "It is {}."
"""


def rule(version: int = 1, helper: str = SAID) -> str:
    return RULE.format(version=version, helper=helper)


def record(n: int, company: str = "acme", **more: Any) -> Any:
    return said("record.ingested", {"kind": "sum", "data": json.dumps({"n": n})}, company=company, **more)


@pytest.fixture
def rules(release: Any) -> Any:
    """(text) -> its rules, once all is on record."""

    def recorded(text: str) -> Any:
        app = release(text)
        app.record()
        return with_apps([app]).rules

    return recorded


async def test_an_event_teaches_what_the_rule_makes_of_it_the_same_each_time(rules: Any, tmp_path: Path) -> None:
    there = rules(rule())
    log = await log_of([record(2), record(3, entity="x"), record(2, company="globex"), talk("Hello", "Hi.")])
    how = {"select": Selection(rules=("sums.v1",)), "rules": there}
    made, again = await built(log, tmp_path, **how), await built(log, tmp_path, **how)
    answers = sorted(each.answer.content for each in made.lessons)
    assert answers == ["Hi.", "It is 0.", "It is 2.", "It is 4."]
    assert made == again and made.manifest.repeats == 2
    (used,) = made.manifest.rules or ()
    assert (used.name, used.sha256, used.events, used.failed) == ("sums.v1", there["sums.v1"].sha256, 2, 0)
    without = Selection(rules=("sums.v1",), leave_out=("x",), agents=("sums",))
    narrowed = await built(log, tmp_path, select=without, rules=there)
    assert sorted(each.answer.content for each in narrowed.lessons) == ["It is 0.", "It is 2."]
    nothing = await built(log, tmp_path)
    assert nothing.manifest.rules is None and len(nothing.lessons) == 1, "it is asked for by name alone"


async def test_what_a_rule_cannot_take_costs_that_event_alone(rules: Any, tmp_path: Path) -> None:
    there, noticed = rules(rule()), list[Any]()
    log = await log_of([record(9), record(101), record(2), said("record.ingested", {"kind": "sum", "data": "{}"})])
    select = Selection(rules=("sums.v1",))
    made = await built(log, tmp_path, select=select, rules=there, on_noticed=noticed.append)
    assert len(made.lessons) == 2
    (used,) = made.manifest.rules or ()
    assert (used.events, used.failed) == (4, 3)
    (line,) = noticed[0].failures
    assert "sums.v1 failed over 3" in line and "company-data/" in line and "an_app_of_a_test_" in line


@pytest.mark.parametrize(
    "made", ["5", "[5]", "[Talk(agent='a' * 200, messages=())]", "[Talk(agent='a', messages=(1,))]",
             "[Talk(agent='a', messages=(Message(role='user', content='\\ud800'),))]"],
)  # fmt: skip
async def test_what_no_conversation_could_hold_is_no_row(made: str, rules: Any, tmp_path: Path) -> None:
    text = rule().replace('return [said(n) for n in range(given["n"])]', f"return {made}")
    built_ = await built(await log_of([record(1)]), tmp_path, select=Selection(rules=("sums.v1",)), rules=rules(text))
    assert (built_.manifest.rules or ())[0].failed == 1 and not built_.rows


async def test_a_rule_that_makes_much_of_little_is_stopped_at_the_bound_before_the_disk_is_full(
    rules: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put: list[int] = []

    def counted(apart: Any, text: bytes) -> Any:
        put.append(len(text))
        return real(apart, text)

    real = learned._put
    monkeypatch.setattr(learned, "_put", counted)
    text = rule(helper=SAID.replace('"It is {}."', '"It is {}." + "y" * 10_000'))
    there = rules(text.replace("said(n) for", "said(n * 1_000 + given['n']) for"))
    log = await log_of([record(n) for n in range(80, 100)])
    with pytest.raises(TooMuchData):
        await built(log, tmp_path, select=Selection(rules=("sums.v1",)), rules=there, most_bytes=1 << 20)
    assert sum(put) < 3 << 20


async def test_what_a_rule_takes_of_ours_it_alone_teaches(rules: Any, tmp_path: Path) -> None:
    text = (
        rule()
        .replace("event: RecordIngested", "event: ConversationIngested")
        .replace("json.loads(event.data)", '{"n": len(event.messages)}')
    )
    there = rules(text)
    log = await log_of([talk("Hello", "Hi.")])
    made = await built(log, tmp_path, select=Selection(rules=("sums.v1",)), rules=there)
    assert {each.agent for each in made.lessons} == {"sums"}
    assert topics_of(["sums.v1"], there) == ("company-data",)


def test_a_rule_that_is_missing_or_other_code_is_refused_by_name(rules: Any) -> None:
    there = rules(rule())
    with pytest.raises(RuleMissing, match=r"no rule 'sums\.v2' here; there are: sums\.v1"):
        chosen(["sums.v2"], there)
    (used,) = [msgspec.structs.replace(each, sha256="0" * 64) for each in _used(there)]
    with pytest.raises(RuleMissing, match=r"'sums\.v1'.*other code"):
        chosen(["sums.v1"], there, [used])
    asked = TrainingRequested(
        id="r", company="acme", base_model="tiny", time=1, correlation="r", settings='{"select":{"rules":["sums.v1"]}}'
    )
    refused = admit(asked, ["lora"], lambda _: None, RunBounds(), NO_RULES)
    assert isinstance(refused, NotAdmitted) and refused.reason == "unknown_rule" and "sums.v1" in refused.detail
    assert not isinstance(admit(asked, ["lora"], lambda _: None, RunBounds(), there), NotAdmitted)


def _used(there: Any) -> Any:
    from processors.dataset.taught import AskedRules

    return AskedRules(list(there.values())).used()


def refused(app: Any, *told: str) -> None:
    with pytest.raises(BadApp) as error:
        with_apps([app])
    assert not [each for each in told if each not in str(error.value)], error.value


def test_other_code_under_the_same_version_is_refused_however_deep_it_stands(release: Any) -> None:
    refused(release(rule()), "sums.v1 is not on record", "rillfold app record")
    release(rule()).record()
    with_apps([release(rule() + "\nANOTHER = 1\n")])
    for old, new in (("It is", "That is"), ("{n} and {n}", "{n} + {n}"), ("# What is asked.", "# Asked.")):
        refused(release(rule(helper=SAID.replace(old, new))), "sums.v1", "other code than on record", ":")
    both = rule() + rule(2, "").replace("TWICE", "THRICE")
    app = release(both)
    app.record()
    assert set(with_apps([app]).rules) == {"sums.v1", "sums.v2"}


@pytest.mark.parametrize(
    ("imported", "said_as"),
    [
        ("from .words import answer", "answer()"),
        ("from .words import *", "answer()"),
        ("from . import words", "words.answer()"),
        ("import {name}.words as w", "w.answer()"),
        ("", "answer()"),
    ],
)
def test_code_in_another_module_of_the_package_counts(
    imported: str, said_as: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    hashes = []
    within = "" if imported else "from .words import answer; "
    for letter, said_ in (("a", "yes"), ("b", "yes"), ("c", "no")):
        name = f"pack_{letter}_{next(PACKS)}"
        folder = tmp_path / name
        folder.mkdir()
        (folder / "__init__.py").touch()
        words = f"from json import dumps\nANSWER = {said_!r}\ndef answer(): return dumps(ANSWER)\n"
        (folder / "words.py").write_text(words)
        (folder / "app.py").write_text(
            "from rillfold import App, Talk\nfrom schemas.company import RecordIngested\n"
            f'{imported.format(name=name)}\napp = App("pack")\n@app.rule("r")\n'
            f"def r(event: RecordIngested) -> list[Talk]:\n    {within}return {said_as}\n"
        )
        (app,) = apps_of(f"{name}.app")
        hashes.append(app.rules["r.v1"].sha256)
    assert hashes[0] == hashes[1] != hashes[2]


HEAD = """
from rillfold import App, Talk
app = App("x")
@app.event("e.e")
class E:
    n: int
    def told(self): return f"{self.n} METHOD"
"""
RULES = '@app.rule("r")\ndef r(event: E):\n    return '
OTHERS = {
    "a_flat_module_beside": {
        "m": HEAD + "from flat_words import told\n" + RULES + "told()",
        "words": "def told(): return 'OLD'",
    },
    "what_that_imports_flat": {
        "m": HEAD + "from flat_words import told\n" + RULES + "told()",
        "words": "import flat_deep as deep\ndef told(): return deep.SAID",
        "deep": "SAID = 'OLD'",
    },
    "behind_form_feeds": {"m": HEAD + "\x0c\n# two\x0c\x1c\x85\u2028\n" + RULES + "(\n    'OLD')"},
    "set_while_it_loads": {"m": HEAD + "WORDS = {}\nWORDS['u'] = 'OLD'\n" + RULES + "WORDS['u']"},
    "set_by_a_call": {
        "m": HEAD + "from flat_words import WORDS\nimport flat_more\n" + RULES + "WORDS['u']",
        "words": "WORDS = {}",
        "more": "from flat_words import WORDS\nX = WORDS.update(u='OLD')",
    },
    "registered": {
        "m": HEAD + "MADE = []\ndef made(f):\n    MADE.append(f)\n    return f\n"
        "@made\ndef one(): return 'OLD'\n" + RULES + "MADE[0]()",
    },
    "a_method_of_the_event": {"m": HEAD.replace("METHOD", "OLD") + RULES + "event.told()"},
    "the_second_of_one_import": {
        "m": HEAD + "import flat_p.one, flat_p.two\n" + RULES + "flat_p.two.told()",
        "p/__init__": "", "p/one": "", "p/two": "def told(): return 'OLD'",
    },
    "blanks_within_a_text": {"m": HEAD + RULES + '"""OLD\n"""'},
}  # fmt: skip


@pytest.mark.parametrize("case", OTHERS)
def test_whatever_changes_its_rows_changes_its_hash(case: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hashes = []
    for n, word in enumerate(("OLD", "OLD", "OLD  ")):
        for file, text in OTHERS[case].items():
            path = tmp_path / str(n) / f"flat_{file}.py"
            path.parent.mkdir(exist_ok=True, parents=True)
            path.write_text(text.replace("OLD", word))
        with monkeypatch.context() as patched:
            patched.syspath_prepend(tmp_path / str(n))
            (app,) = apps_of("flat_m")
        hashes.append(app.rules["r.v1"].sha256)
        for name in [name for name in sys.modules if name.startswith("flat_")]:
            del sys.modules[name]
        for known in (module_of, _own, _places):
            known.cache_clear()
    assert hashes[0] == hashes[1] != hashes[2]


def test_the_order_of_what_runs_counts(release: Any) -> None:
    first, second = "W['u'] = 1\n", "W['u'] = 2\n"
    hashes = {
        release(rule(helper=SAID + "W = {}\n" + both).replace("given[", "W and given[")).rules["sums.v1"].sha256
        for both in (first + second, second + first, "\n" + first + second)
    }
    assert len(hashes) == 2


def test_what_is_declared_beside_a_rule_is_none_of_it(release: Any) -> None:
    release(rule()).record()
    beside = """
app.topic("beside")
@app.event("beside.said", topic="beside")
class Beside:
    n: int
@app.projection("beside", key=lambda event: SAID)
def beside(state: Total, event: Beside) -> Total: return said(state)
SAID = {"a": 1}
SAID["b"] = len(SAID)
"""
    app = release(rule() + beside + rule(2, "").replace("return [", "return [] and ["))
    app.record()
    assert set(with_apps([app]).rules) == {"sums.v1", "sums.v2"}


PACKS = count()
TEACH = "from rillfold import Talk\n@app.rule({})\n{}\n"
FORM = "def r(event: RecordIngested) -> list[Talk]: ..."
WRONG = {
    "no_parentheses": ("@app.rule\n" + FORM.replace("list[Talk]", "list"), ["@app.rule", "in parentheses"]),
    "a_coroutine": (TEACH.format('"r"', "async " + FORM), ["no plain function"]),
    "no_function": (TEACH.format('"r"', "class R: ..."), ["no plain function"]),
    "no_type": (TEACH.format('"r"', "def r(event): ..."), ["takes one event"]),
    "two_arguments": (TEACH.format('"r"', "def r(event: RecordIngested, now: int): ..."), ["takes one event"]),
    "no_event": (TEACH.format('"r"', "def r(event: Total): ..."), ["Total", "no event"]),
    "name_of_no_form": (TEACH.format('"R-1"', FORM), ["'R-1'", "lower letters"]),
    "name_of_ours": (TEACH.format('"answers"', FORM), ["'answers'", "Rillfold's own"]),
    "version_none": (TEACH.format('"r", version=0', FORM), ["version 0", "count from 1"]),
    "name_twice": (2 * TEACH.format('"r"', FORM), ["r.v1", "already in shop"]),
    "inside_of_another": (
        "def outer():\n    @app.rule('r')\n    def r(event: RecordIngested): ...\nouter()\n",
        ["made inside of another"],
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", WRONG)
def test_a_rule_that_is_wrong_is_named_with_its_place(case: str, refused: Any) -> None:
    refused(*WRONG[case])


def test_two_applications_with_a_rule_of_one_name(release: Any) -> None:
    apps = [release(rule()) for _ in range(2)]
    apps[0].record()
    with pytest.raises(BadApp, match="another application's"):
        with_apps(apps)
