"""Only a schema-valid call of an offered tool passes, and no schema can stall or reach out."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
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
        {"description": "x" * 40_000},
    ],
)
def test_a_schema_that_reaches_out_or_never_ends_is_refused(schema: dict[str, object]) -> None:
    with pytest.raises(UnusableSchema):
        gate.check_parameters(schema)
    verdict = gate.check(call("t", {}), {"t": Offer(name="t", parameters=schema)})
    assert isinstance(verdict, Denied)
    assert verdict.reason == "unusable_schema"


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
