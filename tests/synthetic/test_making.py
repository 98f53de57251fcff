"""Conversations that are made from descriptions of tools: right by every check, apart from what is measured."""

from __future__ import annotations

import json
from collections import Counter

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from processors.dataset.turns import is_held_out
from processors.errors import ModelAway
from processors.synthetic import checks
from processors.synthetic.definition import EXAMPLE, ToolDefinition, UnusableTool, mistake_in, must_be_usable
from processors.synthetic.generator import Generator
from processors.synthetic.lots import Lots
from processors.synthetic.making import KINDS
from processors.synthetic.mix import Mix, first_mix
from processors.synthetic.values import LEARNED, MEASURED, Drawing, is_open, leaves
from schemas.company import Message, ToolUse

MANY, SOME = 120, 40


def mix_of(tools: list[ToolDefinition], examples: int = MANY) -> Mix:
    return first_mix([tool.name for tool in tools], examples, 0.7)


def open_values(made, tools) -> set:
    schemas = {tool.name: tool.parameters for tool in tools}
    found = set()
    for use in (use for message in made.messages for use in message.tool_calls):
        found |= {
            (use.name, name, value)
            for name, value, schema in leaves(json.loads(use.arguments), schemas[use.name])
            if is_open(schema)
        }
    return found


def test_what_is_made_passes_every_check_and_shares_no_value_with_what_is_measured(tools):
    generator, by_name = Generator(tools), {tool.name: tool for tool in tools}
    measured = generator.measured(mix_of(tools, SOME), 1)
    learned = generator.learned(mix_of(tools), 1, generator.held_out(measured.made))
    assert (len(measured.made), len(learned.made)) == (SOME, MANY)
    assert {each.kind for each in learned.made} == set(KINDS)
    for each in (*measured.made, *learned.made):
        assert [check(each, by_name) for check in (checks.form, checks.execution, checks.by_rules)] == [None] * 3
    assert {is_held_out(each.question) for each in measured.made} == {True}
    assert {is_held_out(each.question) for each in learned.made} == {False}
    known = set().union(*(open_values(each, tools) for each in measured.made))
    assert known and known.isdisjoint(set().union(*(open_values(each, tools) for each in learned.made)))
    questions = [each.question for each in learned.made]
    assert len(set(questions)) == len(questions)


def test_a_seed_decides_everything_and_another_one_something_else(tools):
    one, again, other = (
        Generator(tools).learned(mix_of(tools, SOME), seed, Generator(tools).held_out([])).made for seed in (1, 1, 2)
    )
    assert one == again and not {each.question for each in one} & {each.question for each in other}


def test_the_next_batch_says_nothing_that_was_said_before(tools):
    generator = Generator(tools)
    none = generator.held_out([])
    first = generator.learned(mix_of(tools, SOME), 1, none)
    again = generator.learned(mix_of(tools, SOME), 1, none, first.made)
    assert again.dropped["said before"] >= SOME
    assert not {each.question for each in first.made} & {each.question for each in again.made}


def test_a_chain_hands_a_result_on_and_a_missing_argument_is_asked_for(tools):
    made = Generator(tools).learned(mix_of(tools), 3, Generator(tools).held_out([])).made
    for each in (each for each in made if each.kind == "chained"):
        result, then = json.loads(each.messages[2].content), json.loads(each.messages[3].tool_calls[0].arguments)
        assert then["customer_id"] == result["customer_id"] and result["customer_id"] not in each.question
    for each in (each for each in made if each.kind == "missing"):
        assert each.messages[1].content.endswith("?") and not each.messages[1].tool_calls


def bounded(kind: str, low: str, high: str, least: int, most: int) -> st.SearchStrategy[dict]:
    span = st.tuples(st.integers(least, most), st.integers(0, 99))
    return span.map(lambda pair: {"type": kind, low: pair[0], high: sum(pair)})


FORMATS = ("date", "time", "date-time", "email", "uuid", "uri", "ipv4", "hostname")
PATTERNS = ("^[A-Z]{2}-\\d{4}$", "(red|blue)\\w*", "^x?[0-9a-f]{6,8}$")
PLAIN = ({"enum": ["a", 2, None]}, {"const": 7}, {"type": ["string", "null"]}, {"type": "boolean"}, {"type": "null"})
SCHEMAS = st.one_of(
    bounded("integer", "minimum", "maximum", -9, 99),
    bounded("string", "minLength", "maxLength", 0, 30),
    st.sampled_from([0.25, 5, 0.1]).map(lambda step: {"type": "number", "multipleOf": step, "minimum": 0}),
    st.sampled_from(FORMATS).map(lambda name: {"type": "string", "format": name}),
    st.sampled_from(PATTERNS).map(lambda pattern: {"type": "string", "pattern": pattern}),
    st.sampled_from(PLAIN),
)
NESTED = st.recursive(
    SCHEMAS,
    lambda inner: st.one_of(
        st.builds(lambda items: {"type": "array", "items": items, "minItems": 1, "maxItems": 2}, inner),
        st.builds(lambda a, b: {"type": "object", "properties": {"a": a, "b": b}, "required": ["b"]}, inner, inner),
        st.builds(lambda a, b: {"oneOf": [a, {"type": "array", "items": b}]}, inner, inner),
    ),
    max_leaves=4,
)


@settings(max_examples=60)
@given(schema=NESTED, seed=st.integers(0, 9), side=st.sampled_from([LEARNED, MEASURED]))
def test_what_is_drawn_is_what_the_schema_allows(schema, seed, side):
    whole = {"type": "object", "properties": {"customer": schema}, "required": ["customer"]}
    if "oneOf" in json.dumps(schema) and mistake_in(Drawing(whole, Lots(seed), side).arguments(), whole):
        return  # one that both ways allow: `must_be_usable` refuses such a schema
    assert mistake_in(Drawing(whole, Lots(seed), side).arguments(), whole) is None


def described(**changes) -> list[ToolDefinition]:
    return [ToolDefinition(**{**EXAMPLE, "examples": [], **changes})]


def taking(**schema) -> dict:
    return {"parameters": {"type": "object", "properties": {"weight": schema}, "required": ["weight"]}}


REFUSED = {
    "no tool": ([], "There is no tool"),
    "two of one name": (described() * 2, "Two tools are called 'book_pickup'"),
    "no name": (described(name=" x\n"), "cannot be called"),
    "a blank": (described(name="x y"), "as where tools are registered"),
    "an accent": (described(name="é"), "as where tools are registered"),
    "a line": (described(name="x\n"), "as where tools are registered"),
    "no parameters": (described(parameters={}), "has no parameters"),
    "no property": (described(parameters={"type": "object", "properties": {}}), "has no parameters"),
    "minimum over maximum": (described(**taking(type="integer", minimum=9, maximum=1)), "minimum 9 over the maximum 1"),
    "an empty enum": (described(**taking(enum=[])), "cannot be satisfied"),
    "nothing at all": (described(**taking(**{"not": {}})), "cannot be satisfied"),
    "a type that is none": (described(**taking(type="decimal")), "cannot be satisfied"),
    "no multiple": (described(**taking(type="integer", minimum=1, maximum=4, multipleOf=5)), "no multiple of 5"),
    "a pattern beyond us": (described(**taking(type="string", pattern="(a+)+$")), "pattern"),
    "a pattern that never ends": (described(**taking(type="string", pattern="[a-z")), "pattern"),
    "a reference to nowhere": (described(**taking(**{"$ref": "#/nowhere"})), "#/nowhere"),
    "a reference in a circle": (
        described(parameters={"type": "object", "properties": {"a": {"$ref": "#/properties/a"}}, "required": ["a"]}),
        "cannot be satisfied",
    ),
    "required and unknown": (
        described(parameters={"type": "object", "properties": {"a": {}}, "required": ["b"]}),
        "requires 'b'",
    ),
    "returns nothing": (described(returns={"type": "integer", "minimum": 3, "maximum": 2}), "The returns of tool"),
    "an example that contradicts": (
        described(examples=[{"input": "x", "arguments": {"address": 4, "weight_kg": 1}}]),
        "Example 1 of tool 'book_pickup' contradicts its parameters",
    ),
    "an output that contradicts": (
        described(examples=[{**EXAMPLE["examples"][0], "output": {"pickup_id": 1}}]),
        "contradicts its returns",
    ),
    "an example without input": (described(examples=[{"arguments": {}}]), "Example 1"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_a_description_of_which_nothing_right_can_be_made_is_refused_in_one_line(name):
    tools, said = REFUSED[name]
    with pytest.raises(UnusableTool) as refused:
        must_be_usable(tools)
    assert said in str(refused.value) and "\n" not in str(refused.value)


def test_each_check_sees_what_it_is_for(tools):
    by_name = {tool.name: tool for tool in tools}
    made = Generator(tools).learned(mix_of(tools), 1, Generator(tools).held_out([])).made
    single = next(each for each in made if each.kind == "single" and len(each.messages) == 4)
    user, call, result, words = single.messages
    (use,) = call.tool_calls

    def with_call(arguments: str, name: str = use.name):
        other = msgspec.structs.replace(call, tool_calls=(ToolUse(name=name, arguments=arguments),))
        return single._replace(messages=(user, other, result, words))

    spaced = json.dumps(json.loads(use.arguments), indent=1)
    assert checks.form(with_call(spaced), by_name) == "message 1 is not in canonical form"
    assert checks.form(with_call(use.arguments, "no_such"), by_name) == "there is no tool 'no_such'"
    assert checks.form(with_call("{}"), by_name) is not None
    assert checks.form(single._replace(messages=(user, words)), by_name) == "0 calls where 1 are right"
    forged = msgspec.structs.replace(result, content='{"forged":true}')
    assert checks.execution(single._replace(messages=(user, call, forged, words)), by_name) is not None
    silent = Message(role="user", content="Do it.")
    assert "nobody says" in (checks.by_rules(single._replace(messages=(silent, call)), by_name) or "")
    more = Message(role="user", content=user.content + " Platform 7531.")
    assert "7531" in (checks.by_rules(single._replace(messages=(more, call)), by_name) or "")
    missing = next(each for each in made if each.kind == "missing")
    told = Message(role="user", content=f"{missing.question} {missing.messages[2].content}")
    assert checks.by_rules(missing._replace(messages=(told, *missing.messages[1:])), by_name) == "nothing is missing"


def test_a_judge_is_asked_after_the_rules_and_what_it_refuses_is_counted(tools):
    batch = Generator(tools, judge=lambda made, _: "dull" if made.kind == "parallel" else None).learned(
        mix_of(tools, SOME), 1, Generator(tools).held_out([])
    )
    assert batch.dropped["judge"] and "parallel" not in {each.kind for each in batch.made}


def test_a_call_that_is_measured_with_is_not_learned_and_counted():
    few = described(**taking(type="string", pattern="^[AB]$"))
    generator = Generator(few)
    measured = generator.measured(mix_of(few, 12), 1)
    learned = generator.learned(mix_of(few, 12), 1, generator.held_out(measured.made))
    assert learned.dropped["held out by values"]
    assert {each.kind for each in learned.made} <= {"irrelevant", "missing"}


def test_tools_that_let_little_be_said_end_with_a_line_and_what_there_is():
    few = described(**taking(enum=["red"]))
    batch = Generator(few).learned(
        msgspec.structs.replace(mix_of(few, 300), kinds={"single": 1.0}), 1, Generator(few).held_out([])
    )
    assert 0 < len(batch.made) < 300 and "let nothing else be said" in batch.notes[0]


def test_a_writer_words_what_is_learned_and_values_stay(tools):
    generator = Generator(tools, writer=lambda text, _: f"Dear all, {text}")
    batch = generator.learned(mix_of(tools, SOME), 1, generator.held_out([]))
    worded = [each for each in batch.made if each.question.startswith("Dear all, ")]
    assert worded and len(batch.made) == SOME
    assert not any(each.question.startswith("Dear") for each in generator.measured(mix_of(tools, SOME), 1).made)


def test_a_writer_that_talks_nonsense_is_asked_no_more_and_templates_go_on(tools):
    asked = Counter()

    def nonsense(text: str, _: float) -> str:
        asked["times"] += 1
        return "Buy gold now 4711!"

    batch = Generator(tools, writer=nonsense).learned(mix_of(tools, SOME), 1, Generator(tools).held_out([]))
    assert len(batch.made) == SOME and asked["times"] < SOME
    assert "are no use. Templates go on." in batch.notes[0] and any(
        name.startswith("writer: ") for name in batch.dropped
    )


def test_a_writer_that_goes_away_leaves_what_it_worded_and_a_line(tools):
    left = iter(range(30))

    def until_it_dies(text: str, _: float) -> str:
        if next(left, None) is None:
            raise ModelAway("The writer at http://there is away.")
        return f"Dear all, {text}"

    batch = Generator(tools, writer=until_it_dies).learned(mix_of(tools), 1, Generator(tools).held_out([]))
    assert len(batch.made) == MANY and batch.notes == ("The writer at http://there is away. Templates word the rest.",)
    assert any(each.question.startswith("Dear all, ") for each in batch.made)
