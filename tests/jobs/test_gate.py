"""Only a schema-valid call of an offered tool passes, and no schema can stall or reach out."""

from __future__ import annotations

import json
import time

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from processors import gate
from processors.answers import Malformed, ToolCalls, parse
from processors.errors import UnusableSchema
from processors.gate import Allowed, Denied, Offer
from schemas.company import ToolAuth, ToolRegistered, ToolUse

REFUND = {
    "type": "object",
    "properties": {
        "order": {"type": "string", "maxLength": 12},
        "amount": {"type": "number", "minimum": 0},
        "note": {"type": "object", "properties": {"text": {"type": "string"}}},
    },
    "required": ["order", "amount"],
}
OFFERS = {"refund": Offer(name="refund", parameters=REFUND), "ping": Offer(name="ping", parameters={})}


def call(name: str, arguments: object) -> ToolUse:
    return ToolUse(name=name, arguments=msgspec.json.encode(arguments).decode())


def test_a_valid_call_passes_in_canonical_form() -> None:
    verdict = gate.check(call("refund", {"order": "A1", "amount": 3}), OFFERS)
    assert verdict == Allowed(tool="refund", arguments='{"amount":3,"order":"A1"}')
    assert gate.check(call("ping", {}), OFFERS) == Allowed(tool="ping", arguments="{}")


@pytest.mark.parametrize(
    ("name", "arguments", "reason"),
    [
        ("delete_all", {}, "unknown_tool"),
        ("refund", {"order": "A1"}, "invalid_arguments"),
        ("refund", {"order": "A1", "amount": -1}, "invalid_arguments"),
        ("refund", {"order": "A1", "amount": "3"}, "invalid_arguments"),
        ("refund", {"order": "A" * 13, "amount": 3}, "invalid_arguments"),
        ("refund", {"order": "A1", "amount": 3, "to": "mallory"}, "invalid_arguments"),
        ("refund", {"order": "A1", "amount": 3, "note": {"url": "x"}}, "invalid_arguments"),
        ("ping", {"extra": 1}, "invalid_arguments"),
        ("refund", ["A1", 3], "malformed_call"),
        ("refund", {"order": "x" * 20_000, "amount": 3}, "arguments_too_large"),
    ],
)
def test_anything_else_is_denied_with_its_reason(name: str, arguments: object, reason: str) -> None:
    verdict = gate.check(call(name, arguments), OFFERS)
    assert isinstance(verdict, Denied)
    assert verdict.reason == reason


@pytest.mark.parametrize("depth", [40, 900, 5_000])
def test_deep_arguments_are_denied_at_any_depth(depth: int) -> None:
    open_offer = {"any": Offer(name="any", parameters={"type": "object", "additionalProperties": True})}
    text = '{"a":' * depth + "1" + "}" * depth
    assert isinstance(gate.check(ToolUse(name="any", arguments=text), open_offer), Denied)
    said = parse(f'<tool_call>{{"name":"any","arguments":{text}}}</tool_call>')
    assert isinstance(said, Malformed) or isinstance(gate.check(said.calls[0], open_offer), Denied)


def doubling(levels: int) -> dict[str, object]:
    names = {f"d{n}": {"allOf": [{"$ref": f"#/$defs/d{n + 1}"}] * 2} for n in range(levels)}
    return {"$ref": "#/$defs/d0", "$defs": {**names, f"d{levels}": {"type": "object"}}}


@pytest.mark.parametrize(
    "schema",
    [
        {"$ref": "https://evil.example/schema.json"},
        {"properties": {"a": {"$ref": "file:///etc/passwd"}}},
        {"$id": "https://evil.example/", "properties": {}},
        {"$ref": "#/$defs/nowhere"},
        {"$ref": "#/$defs/loop", "$defs": {"loop": {"$ref": "#/$defs/loop"}}},
        doubling(30),
        {"properties": {"a": {"type": "string", "pattern": "(a+)+$"}}},
        {"patternProperties": {"(a+)+$": {}}},
        {"type": "no-such-type"},
        # As the validator reads it, this is the very loop: %78 is x, and ~01 is ~1.
        {"properties": {"a": {"$ref": "#/$defs/%78"}}, "$defs": {"x": {"items": {"$ref": "#/$defs/x"}}, "%78": {}}},
        {"$ref": "#/$defs/~01", "$defs": {"~1": {"not": {"$ref": "#/$defs/~01"}}}},
        {"$ref": "#/anyOf/0", "anyOf": [{"items": {"$ref": "#/anyOf/0"}}]},
        {"$ref": "#/$defs/%70%61th", "$defs": {"path": {"pattern": "(a+)+$"}}},
        {"$ref": "#/$defs/a%2Fb", "$defs": {"a": {"b": {"$ref": "https://evil.example/"}}}},
        {"$ref": "#/$defs/x/type", "$defs": {"x": {"type": "string"}}},
        {"$ref": "#/properties/a/x/0"},
        {"$ref": "#anchor", "$defs": {"x": {"$anchor": "anchor", "items": {"$ref": "#anchor"}}}},
        {"$ref": ""},
        {"$ref": "#"},
        {"$dynamicRef": "#meta"},
        {"items": {"$id": "urn:x", "$ref": "#/$defs/x"}},
        {"properties": {"a": {"$schema": "http://json-schema.org/draft-03/schema#", "extends": {"$ref": "#"}}}},
        {"required": [{"a": n} for n in range(300)]},
        {"properties": {"a": {"multipleOf": 0}}},
        {"properties": {"a": {"minLength": -1}}},
        {"enum": [[n] for n in range(400)]},
        {"description": "x" * 40_000},
    ],
)
def test_a_schema_that_reaches_out_or_never_ends_is_refused(schema: dict[str, object]) -> None:
    with pytest.raises(UnusableSchema):
        gate.check_parameters(schema)
    verdict = gate.check(call("t", {}), {"t": Offer(name="t", parameters=schema)})
    assert isinstance(verdict, Denied)
    assert verdict.reason == "unusable_schema"


@pytest.mark.parametrize(
    ("parameters", "arguments"),
    [
        ({"$defs": {"x": {"const": {"minimum": "a"}}}, "properties": {"a": {"$ref": "#/$defs/x/const"}}}, {"a": 1}),
        ({"$defs": {"x": {"const": {"multipleOf": 0}}}, "properties": {"a": {"$ref": "#/$defs/x/const"}}}, {"a": 1}),
        ({"$defs": {"x": {"const": {"type": 7}}}, "properties": {"a": {"$ref": "#/$defs/x/const"}}}, {"a": 1}),
        ({"$defs": {"x": {"const": {"allOf": 7}}}, "properties": {"a": {"$ref": "#/$defs/x/const"}}}, {"a": 1}),
        ({"properties": {"a": {"multipleOf": 1e-320}}}, {"a": 1e308}),
        ({"properties": {"a": {"minLength": 10**30}}}, {"a": "x"}),
        ({"properties": {"a": {"multipleOf": 3}}}, {"a": 10**19 + 1}),
    ],
)
def test_what_the_validator_stumbles_over_is_denied(parameters: dict[str, object], arguments: object) -> None:
    text = json.dumps(arguments)
    assert isinstance(
        gate.check(ToolUse(name="t", arguments=text), {"t": Offer(name="t", parameters=parameters)}), Denied
    )


def nested(levels: int) -> dict[str, object]:
    return {"allOf": [nested(levels - 1)], "unevaluatedProperties": True} if levels else {}


@pytest.mark.parametrize(
    ("parameters", "arguments"),
    [
        (nested(14), {"a": 1}),
        ({"properties": {"a": {"items": {"allOf": [{}] * 250}}}}, {"a": [1] * 7_000}),
        ({"properties": {"a": {"items": {"enum": list(range(1_900))}}}}, {"a": [1] * 7_000}),
        ({"properties": {"a": {"uniqueItems": True}}}, {"a": [{"a": n} for n in range(1_000)]}),
        ({"anyOf": [{"anyOf": [False] * 250}] * 7, "additionalProperties": True}, {"a": "x" * 15_000}),
    ],
)
def test_a_check_ends_in_bounded_work(parameters: dict[str, object], arguments: object) -> None:
    """Seconds to hours, if nobody counted."""
    begun = time.process_time()
    verdict = gate.check(call("t", arguments), {"t": Offer(name="t", parameters=parameters)})
    assert time.process_time() - begun < 5
    assert isinstance(verdict, Denied)
    assert "steps" in verdict.detail


def test_an_ordinary_large_call_is_within_the_work() -> None:
    line = {"type": "object", "properties": {"sku": {"type": "string"}, "n": {"type": "integer", "minimum": 0}}}
    parameters = {"$schema": "http://json-schema.org/draft-07/schema#", "properties": {"lines": {"items": line}}}
    verdict = gate.check(
        call("t", {"lines": [{"sku": f"s{n}", "n": n} for n in range(500)]}),
        {"t": Offer(name="t", parameters=parameters)},
    )
    assert isinstance(verdict, Allowed)


def test_percent_and_tilde_in_a_reference_are_read_as_the_validator_reads_them() -> None:
    schema = {
        "properties": {"a": {"$ref": "#/$defs/%78"}, "b": {"$ref": "#/$defs/s~1t"}, "c": {"$ref": "#/oneOf/0"}},
        "$defs": {"x": {"type": "integer"}, "%78": {"type": "string"}, "s/t": {"type": "boolean"}},
        "oneOf": [{"type": "object"}],
        "additionalProperties": False,
    }
    allowed = {"t": Offer(name="t", parameters=schema)}
    assert isinstance(gate.check(call("t", {"a": 1, "b": True, "c": {}}), allowed), Allowed)
    for wrong in ({"a": "text"}, {"b": 1}, {"c": 1}):
        assert isinstance(gate.check(call("t", wrong), allowed), Denied)


@pytest.mark.parametrize("name", ["", "a/b", "x" * 65, "../x", "a\n", ".a", "-a", " a", "\ud800", "a\u202eb"])
def test_a_name_that_no_tool_can_have_is_denied(name: str) -> None:
    for verdict in (
        gate.check(call(name, {}), {name: Offer(name=name, parameters={})}),
        gate.check_alone(call(name, {})),
    ):
        assert isinstance(verdict, Denied)
        assert verdict.reason == "unknown_tool"
        assert verdict.detail.isprintable()


def test_local_references_are_followed_and_closed() -> None:
    schema = {
        "properties": {"to": {"$ref": "#/$defs/person"}},
        "$defs": {"person": {"type": "object", "properties": {"name": {"type": "string"}}}},
    }
    allowed = {"t": Offer(name="t", parameters=schema)}
    assert isinstance(gate.check(call("t", {"to": {"name": "Ada"}}), allowed), Allowed)
    assert isinstance(gate.check(call("t", {"to": {"name": "Ada", "admin": True}}), allowed), Denied)


@pytest.mark.parametrize(
    "text",
    [
        '<tool_call>{"name": "refund", "arguments": {"order"',
        '<tool_call>{"name": "refund"}</tool_call>',
        '<tool_call>{"arguments": {}}</tool_call>',
        '<tool_call>{"name": "refund", "arguments": "all"}</tool_call>',
        '<tool_call>{"name": "refund", "arguments": {"amount": NaN}}</tool_call>',
        '<tool_call>{"name": "refund", "arguments": {"order": "A1", "order": "A2"}}</tool_call>',
        '<tool_call>{"name": "refund", "arguments": ' + '{"a":' * 5_000,
        "<tool_call></tool_call>",
        "</tool_call>",
    ],
)
def test_a_broken_call_is_never_taken_for_an_answer(text: str) -> None:
    assert isinstance(parse(text), Malformed)


KEYWORDS = ["type", "properties", "$defs", "$ref", "anyOf", "allOf", "not", "if", "enum", "const", "items", "minimum",
            "multipleOf", "uniqueItems", "required", "format", "$anchor", "$schema", "minLength",
            "unevaluatedProperties", "dependentSchemas", "propertyNames", "contains", "prefixItems",
            "a", "b"]  # fmt: skip
SCALARS = st.sampled_from(
    [None, True, False, 0, -1, 0.0, 1e308, 5e-324, 10**25, "", "string", "#/$defs/a", "#/anyOf/0", "a"]
)
SCHEMAS = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(KEYWORDS), inner, max_size=4)
)


@settings(max_examples=300, deadline=None)
@given(st.dictionaries(st.sampled_from(KEYWORDS), SCHEMAS, max_size=5), SCHEMAS)
def test_the_gate_is_total_for_any_schema(parameters: dict[str, object], arguments: object) -> None:
    use = ToolUse(name="t", arguments=json.dumps(arguments))
    assert isinstance(gate.check(use, {"t": Offer(name="t", parameters=parameters)}), Allowed | Denied)


@given(st.text(), st.text())
def test_the_gate_is_total(before: str, arguments: str) -> None:
    assert isinstance(parse(f"{before}<tool_call>{arguments}</tool_call>"), Malformed | ToolCalls)
    assert isinstance(gate.check(ToolUse(name="refund", arguments=arguments), OFFERS), Allowed | Denied)


def test_a_snapshot_is_canonical_and_sorted() -> None:
    def tool(name: str) -> ToolRegistered:
        return ToolRegistered(
            id=name, company="acme", time=0, correlation=name, name=name, description="d",
            parameters='{ "type" : "object" }', endpoint="https://x.example", auth=ToolAuth(kind="none"),
        )  # fmt: skip

    pair = (tool("b"), "company-data/0/1"), (tool("a"), "company-data/0/2")
    text = gate.snapshot(pair)
    assert text == gate.snapshot(reversed(pair))
    assert list(gate.offers(text)) == ["a", "b"]
    assert "x.example" not in text
