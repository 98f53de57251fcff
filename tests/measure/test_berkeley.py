"""Verdicts on calls: the Berkeley leaderboard's, on what it is known for and on what it was asked for these tests."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from processors.measure.berkeley import kind_of, read_calls, verdict

TYPES = {"name": "t", "parameters": {"type": "dict", "required": ["a"], "properties": {}}}


def judged(kind: Any, schema: dict[str, Any], accepted: list[Any], value: Any) -> bool:
    """One argument of one tool."""
    tool = {"name": "t", "parameters": {"type": "dict", "required": ["a"], "properties": {"a": schema}}}
    return verdict(kind, [tool], [{"t": {"a": value}}], [{"t": {"a": accepted}}]).right


@pytest.mark.parametrize(
    ("schema", "accepted", "value", "right"),
    [
        ({"type": "float"}, [5.0], 5, True),
        ({"type": "array", "items": {"type": "float"}}, [[1.0, 2.0]], [1, 2.0], False),
        ({"type": "integer"}, [5], 5.0, False),
        ({"type": "integer"}, [1], True, False),
        ({"type": "string"}, ["April 1, 2024", "Apr 1, 2024"], "apr 1 2024", True),
        ({"type": "string"}, ["it's"], 'it"s', True),
        ({"type": "array", "items": {"type": "string"}}, [["One", "two."]], ["one", "Two"], True),
        ({"type": "array", "items": {"type": "string"}}, [["one", "two"]], ["two", "one"], False),
        ({"type": "integer"}, ["n"], "n", True),
        ({"type": "float"}, [1.5], 10**400, False),
    ],
)
def test_values_are_held_as_the_leaderboard_holds_them(schema, accepted, value, right):
    assert judged("simple", schema, accepted, value) is right


def test_what_may_be_left_out_and_what_may_not_be_added():
    tool = {
        "name": "t",
        "parameters": {
            "type": "dict",
            "required": ["a"],
            "properties": {"a": {"type": "integer"}, "b": {"type": "integer"}, "c": {"type": "integer"}},
        },
    }

    def right(accepted: dict[str, Any], **given: Any) -> bool:
        return verdict("simple", [tool], [{"t": given}], [{"t": accepted}]).right

    assert right({"a": [1], "b": [2, ""]}, a=1)
    assert not right({"a": [1], "b": [2]}, a=1)
    assert not right({"a": [1]}, a=1, c=3)  # the tool has it, the case does not
    assert not right({"a": [1, ""], "b": [2]}, b=2)  # required


def test_parallel_calls_come_in_any_order_and_are_taken_greedily():
    tool = {"name": "t", "parameters": {"type": "dict", "required": ["i"], "properties": {"i": {"type": "integer"}}}}
    one, two = {"t": {"i": 1}}, {"t": {"i": 2}}
    wanted = [{"t": {"i": [1]}}, {"t": {"i": [2]}}]
    assert verdict("parallel", [tool], [two, one], wanted).right
    assert verdict("parallel", [tool], [one], wanted).why == "wrong_count"
    # A matching exists; the leaderboard does not look for it.
    assert not verdict("parallel", [tool], [one, two], [{"t": {"i": [1, 2]}}, {"t": {"i": [1]}}]).right


def test_silence_is_right_or_wrong_and_bad_form_is_told_apart_from_it():
    assert verdict("irrelevance", [], []).right and not verdict("irrelevance", [], []).malformed
    assert verdict("irrelevance", [], "no call").right and verdict("irrelevance", [], "no call").malformed
    assert not verdict("irrelevance", [], [{"any": {}}]).right
    assert verdict("relevance", [], [{"any": {}}]).right
    assert not verdict("relevance", [], []).right and not verdict("relevance", [], {"any": {}}).right
    broken = verdict("simple", [TYPES], [{"t": []}], [{"t": {"a": [1]}}])
    assert broken.malformed and not broken.right
    assert read_calls([{"a": {}, "b": {}}]) is None and read_calls([]) == []


@pytest.mark.parametrize(
    ("category", "kind"),
    [("live_parallel_multiple", "parallel"), ("live_multiple", "multiple"), ("simple_python", "simple"),
     ("live_irrelevance", "irrelevance"), ("live_relevance", "relevance")],
)  # fmt: skip
def test_a_category_says_how_it_is_judged(category, kind):
    assert kind_of(category) == kind


def test_verdicts_that_the_official_checker_gave():
    """`python -m bench.evaluator.record` asked it. `rillfold bench evaluator` holds all of its cases against ours."""
    first, *rest = map(json.loads, Path(__file__).with_name("verdicts.jsonl").read_text().splitlines())
    right = [each["right"] for each in rest]
    assert 40 < sum(right) < len(right) - 40
    for each in rest:
        case = first["cases"][each["case"]]
        ours = verdict(kind_of(each["case"]), case["tools"], each["output"], case["accepted"])
        assert ours.right is each["right"], each
