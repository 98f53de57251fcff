"""The leaderboard's verdict on our own cases and on answers as models write them."""

from __future__ import annotations

import json
from typing import Any

import pytest

from gpu_workers.evaluate.asking import Answered, Side
from gpu_workers.evaluate.measure import Measured, judged
from gpu_workers.evaluate.told import metrics
from processors.measure.by_ast import right_by_ast
from processors.measure.cases import Case
from processors.measure.foreign import Foreign
from schemas.company import Message, ToolUse

PROPERTIES = {
    "id": {"type": "string"},
    "sum": {"type": "number"},
    "pieces": {"type": "integer"},
    "labels": {"type": "array", "items": {"type": "string"}},
    "to": {"type": "object"},
    "odd": {"type": ["string", "null"]},
}
OFFERED = json.dumps(
    [{"type": "function", "function": {"name": "pay", "parameters": {"type": "object", "properties": PROPERTIES}}}]
)


def call(**arguments: Any) -> str:
    return f'<tool_call>\n{{"name": "pay", "arguments": {json.dumps(arguments)}}}\n</tool_call>'


def right(*calls: dict[str, Any], content: str = "") -> Message:
    uses = tuple(ToolUse(name="pay", arguments=json.dumps(arguments)) for arguments in calls)
    return Message(role="assistant", content=content, tool_calls=uses)


@pytest.mark.parametrize(
    ("wanted", "came", "verdict"),
    [
        ({"id": "C-1"}, {"id": "c 1"}, True),
        ({"id": "C-1"}, {"id": "C-2"}, False),
        ({"sum": 5.0}, {"sum": 5}, True),
        ({"sum": 5}, {"sum": 5.0}, True),
        ({"pieces": 5}, {"pieces": 5.0}, False),
        ({"pieces": 1}, {"pieces": True}, False),
        ({"labels": ["One", "two."]}, {"labels": ["one", "Two"]}, True),
        ({"labels": ["one", "two"]}, {"labels": ["two", "one"]}, False),
        ({"to": {"city": "Ely", "floor": 2}}, {"to": {"floor": 2, "city": "ely"}}, True),
        ({"to": {"city": "Ely"}}, {"to": {"city": "York"}}, False),
        ({"odd": None}, {"odd": None}, True),
        ({"odd": "x"}, {"odd": None}, False),
        ({"unknown": [{"a": 1}]}, {"unknown": [{"a": 1}]}, True),
        ({"unknown": [{"a": 1}]}, {"unknown": [{"a": 2}]}, False),
        ({"id": "a"}, {"id": "a", "pieces": 1}, False),
        ({"id": "a", "pieces": 1}, {"id": "a"}, False),
    ],
)
@pytest.mark.parametrize("offered", [OFFERED, None], ids=["described", "unknown"])
def test_arguments_are_held_as_the_leaderboard_holds_them(offered, wanted, came, verdict):
    if offered is None and type(wanted.get("sum")) is int:
        verdict = False  # by the right value it is a whole number
    assert right_by_ast(right(wanted), offered, call(**came)) is verdict


def test_calls_of_one_answer_come_in_any_order_and_the_gates_own_rule_stays_strict():
    one, two = {"id": "a"}, {"id": "b"}
    case = Case(id="c", suite="held_out", prompt=(), tools=OFFERED, right=right(one, two))
    side = Side()
    turned = Answered(case, side, f"{call(**two)}\n{call(**one)}", True)
    assert judged(turned).mistake is not None
    assert right_by_ast(case.right, OFFERED, turned.text)
    assert not right_by_ast(case.right, OFFERED, f"{call(**two)}\n{call(**two)}")
    (suite,) = metrics(Measured(side, side, [turned])).suites
    assert (suite.difference.candidate, suite.ast, suite.served_ast) == (0.0, 1.0, 1.0)
    fell = turned._replace(fell="not_finite: no number", text="")
    assert metrics(Measured(side, side, [fell])).suites[0].ast == 0.0


def test_silence_and_words_beside_a_call():
    wanted = right({"id": "a"})
    assert right_by_ast(None, OFFERED, "Good morning.") and not right_by_ast(None, OFFERED, f"Hm.\n{call(id='a')}")
    assert right_by_ast(None, OFFERED, "<tool_call>broken"), "the leaderboard counts bad form as silence"
    assert not right_by_ast(wanted, OFFERED, "<tool_call>broken") and not right_by_ast(wanted, OFFERED, "I will.")
    said = f"Sure.\n{call(id='a')}"
    assert not right_by_ast(wanted, OFFERED, said) and right_by_ast(right({"id": "a"}, content="Yes."), OFFERED, said)


def test_every_right_answer_to_a_made_up_tool_is_right():
    for case in Foreign().calls(24):
        assert case.right is not None
        (use,) = case.right.tool_calls
        said = f'<tool_call>\n{{"name": "{use.name}", "arguments": {use.arguments}}}\n</tool_call>'
        assert right_by_ast(case.right, case.tools, said)
