"""What was wrong with an answer, and how near words come."""

from __future__ import annotations

import json

import pytest

from processors.answers import ToolCalls, parse
from processors.dataset.lessons import Lesson
from processors.measure.cases import held_out, tools_of, words
from processors.measure.foreign import TOOLS, Foreign
from processors.measure.mistakes import classify, token_f1
from rillfold.demo import data
from schemas.company import Message, ToolUse
from tests.support.training import rows_of


def call(name: str, arguments: str) -> str:
    return f'<tool_call>\n{{"name": "{name}", "arguments": {arguments}}}\n</tool_call>'


RIGHT = Message(role="assistant", tool_calls=(ToolUse(name="pay", arguments='{"id":"C-1","sum":2.5}'),))
GOOD = call("pay", '{"id":"C-1","sum":2.5}')
SAID = Message(role="assistant", content="Done: 3 euros.")


@pytest.mark.parametrize(
    ("expected", "predicted", "mistake"),
    [
        (RIGHT, GOOD, None),
        (RIGHT, call("pay", '{ "sum": 2.5, "id": "C-1" }'), None),
        (RIGHT, call("pays", '{"id":"C-1","sum":2.5}'), "wrong tool"),
        (RIGHT, call("pay", '{"id":"C-1"}'), "wrong argument names"),
        (RIGHT, call("pay", '{"id":"C-1","amount":2.5}'), "wrong argument names"),
        (RIGHT, call("pay", '{"id":"C-2","sum":2.5}'), "wrong values"),
        (RIGHT, call("pay", '{"id":"C-1","sum":"2.5"}'), "wrong values"),
        (RIGHT, "I will pay.", "missing call"),
        (RIGHT, f"{GOOD}\n{GOOD}", "unwanted call"),
        (RIGHT, f"Sure.\n{GOOD}", "extra words"),
        (RIGHT, GOOD.replace("}}", "}"), "malformed"),
        (RIGHT, f"{GOOD} and so on", "malformed"),
        (SAID, "Done: 3 euros.", None),
        (SAID, "Done: 4 euros.", "other words"),
        (SAID, GOOD, "unwanted call"),
        (None, "Good morning!", None),
        (None, "", None),
        (None, GOOD, "unwanted call"),
        (None, GOOD[:-3], "malformed"),
    ],
)
def test_each_answer_has_its_mistake(expected, predicted, mistake):
    assert classify(expected, predicted).mistake == mistake


def test_what_had_no_more_room_is_cut_off_and_counts_as_malformed():
    cut = classify(RIGHT, GOOD[:40], ended=False)
    assert cut.mistake == "cut off" and cut.malformed and not cut.right
    assert classify(RIGHT, "<tool_c", ended=False).mistake == "cut off"
    assert classify(RIGHT, "I think that", ended=False).mistake == "missing call"


def test_one_and_true_and_one_point_nought_are_three_things():
    right = Message(role="assistant", tool_calls=(ToolUse(name="n", arguments='{"a":1}'),))
    assert [classify(right, call("n", f'{{"a":{value}}}')).right for value in ("1", "1.0", "true")] == [
        True,
        False,
        False,
    ]


def test_words_are_as_near_as_what_they_share():
    assert token_f1("Done: 3 euros.", "done 3 EUROS") == 1.0
    assert token_f1("a b c d", "a b") == pytest.approx(2 * 2 / 6)
    assert token_f1("a a b", "a b b") == pytest.approx(2 * 2 / 6)
    assert (token_f1("", ""), token_f1("a", ""), token_f1("a", "b")) == (1.0, 0.0, 0.0)


def test_rows_become_cases_once_and_bad_answers_none():
    talks = [data.conversation(data.ACME, request) for request in data.held_out(data.ACME, 4)]
    rows = rows_of([*talks, *talks])
    cases = held_out(rows, 10, lambda case: True)
    assert len(cases) == len({case.id for case in cases}) == 4
    assert cases == held_out(rows[::-1], 10, lambda case: True) and cases[:2] == held_out(rows, 2, lambda case: True)
    assert [each.right.content for each in words(rows, 10, lambda case: True)] and not held_out(
        rows, 9, lambda _: False
    )

    bad = Lesson(
        agent="a", story="s", turn=1, held_out=True, prompt=rows[0].prompt, answer=rows[0].answer, good=False
    )  # fmt: skip
    assert held_out([bad], 10, lambda case: True) == []


def test_made_up_tools_are_the_same_each_time_and_nobodys_own():
    assert Foreign(1).calls(30) == Foreign(1).calls(30) != Foreign(2).calls(30)
    own = {tool.name for tool in TOOLS}
    for case in Foreign(own=own).calls(20):
        offered = {tool["function"]["name"]: tool["function"] for tool in json.loads(case.tools)}
        (wanted,) = case.right.tool_calls
        assert wanted.name in offered and not set(offered) & own
        assert set(json.loads(wanted.arguments)) == set(offered[wanted.name]["parameters"]["properties"])
        assert "{" not in case.prompt[0].content
        assert isinstance(parse(call(wanted.name, wanted.arguments)), ToolCalls)
    assert len({case.tools for case in Foreign().calls(20)}) == 3, "prompts that begin alike are read once"


def test_where_nothing_fits_no_tool_that_is_asked_for_is_offered():
    cases = Foreign().nothing_fits(24)
    assert len({case.prompt[0].content for case in cases}) == 24
    for case, asked in zip(cases, TOOLS * 3, strict=False):
        assert case.right is None and asked.name not in case.tools
    assert tools_of(rows_of(data.training(data.ACME, 9))) == {tool.name for tool in data.ACME.tools}
