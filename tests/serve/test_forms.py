"""Answers held to a form: every allowed way ends in a well-formed call, and what is forced is what would be written."""

from __future__ import annotations

import json
import threading
from random import Random
from typing import Any

import pytest
import torch
from jsonschema import Draft202012Validator
from transformers import AutoTokenizer

from gpu_workers.bases import load as base_model
from gpu_workers.bases.chat import Chat, body
from gpu_workers.refused import BadQuestion, Refused, RowFailed
from gpu_workers.serve.forms.form import KEPT, WORN, Forms
from gpu_workers.serve.forms.mask import mask_logits
from gpu_workers.serve.port import MustCall, MustFit
from processors.answers import ToolCalls, parse
from rillfold.demo.data import ACME, COMPANIES, DemoCompany, held_out
from rillfold.settings import from_env
from schemas.company import Message, ToolUse
from tests.support.forms import fields, follow, may_come, offering, wander
from tests.support.workbench import Workbench

pytestmark = pytest.mark.model


@pytest.fixture(scope="module")
def real() -> tuple[Chat, Forms]:
    """The tokens of the demo's model; its weights are not read."""
    settings = from_env()
    folder = base_model.prepare(settings.base_model, settings.cache_dir)
    chat = Chat.of(AutoTokenizer.from_pretrained(folder))
    return chat, Forms.of(chat)


@pytest.fixture(scope="module")
def small(bench: Workbench) -> tuple[Chat, Forms]:
    return bench.chat, Forms.of(bench.chat)


@pytest.fixture(scope="module", params=["real", "small"])
def each(request: pytest.FixtureRequest) -> tuple[Chat, Forms]:
    found: tuple[Chat, Forms] = request.getfixturevalue(request.param)
    return found


def tools_of(company: DemoCompany) -> str:
    return offering(**{tool.name: tool.parameters() for tool in company.tools})


def canonical_ids(chat: Chat, call: ToolUse) -> list[int]:
    return [*chat.encode(body(Message(role="assistant", tool_calls=(call,)))), chat.end]


def test_every_call_that_the_demo_teaches_is_accepted_in_few_passes(real: tuple[Chat, Forms]) -> None:
    chat, forms = real
    asked = tokens = 0
    for company in COMPANIES:
        for request in held_out(company, 100):
            ids = canonical_ids(chat, request.call)
            asked += follow(forms.for_(MustCall(), tools_of(company)), ids)
            tokens += len(ids)
    assert 43 < tokens / 200 < 45
    assert asked / 200 < 13.5


def test_the_tiny_tokens_too(small: tuple[Chat, Forms]) -> None:
    chat, forms = small
    for request in held_out(ACME, 20):
        follow(forms.for_(MustCall(), tools_of(ACME)), canonical_ids(chat, request.call))


SCHEMAS: dict[str, dict[str, Any]] = {
    "the demo's": ACME.tools[1].parameters(),
    "nothing": {},
    "an open object": {"type": "object"},
    "letters of all kinds": fields(
        größe={"enum": ["groß", "klein", "日本語", 'a"b\\c\n']}, z={"const": {"b": 1, "a": [1.5]}}
    ),
    "whole numbers": fields(n={"type": "integer"}, m={"type": "integer", "minimum": -5, "maximum": 7}),
    "numbers": fields(x={"type": "number"}, y={"type": ["number", "null"]}, z={"type": "number", "minimum": 0.5}),
    "64 bits": fields(n={"type": "integer", "minimum": -(2**63), "maximum": 2**63 - 1}, m={"exclusiveMinimum": 10}),
    "floats": fields(x={"type": "number", "exclusiveMinimum": -1.7e308, "exclusiveMaximum": 1.7e308}),
    "lists": fields(l={"type": "array", "items": {"type": "boolean"}, "minItems": 1, "maxItems": 3}),
    "pairs": fields(p={"type": "array", "prefixItems": [{"type": "string"}, {"type": "null"}], "items": False}),
    "anything": fields(a={}, b=True, c={"type": "array"}),
    "short words": fields(s={"type": "string", "maxLength": 5, "minLength": 2}, t={"pattern": "^[a-c]{2,4}$"}),
    "dates": fields(
        d={"type": "string", "format": "date"}, u={"type": "string", "format": "uuid"}, x={"format": "int32"}
    ),
    "optional": {"type": "object", "properties": {"b": {"type": "null"}, "a": {"type": "boolean"}}},
    "either": fields(e={"anyOf": [{"type": "null"}, fields(a={"type": "integer"}), {"type": "boolean"}]}),
    "both": fields(e={"allOf": [{"type": "string", "minLength": 2}, {"maxLength": 4}]}),
    "inherited": {
        "$defs": {"base": {"properties": {"id": {"type": "null"}}, "required": ["id"]}, "more": {"type": "object"}},
        "allOf": [{"$ref": "#/$defs/base"}, {"$ref": "#/$defs/more"}, {"properties": {"a": {"type": "boolean"}}}],
        "required": ["a"],
    },
    "within": fields(o=fields(z={"type": "null"}, a=fields(deep={"enum": [1, 2]}))),
    "referred": {
        "$defs": {"one": fields(a={"enum": ["x"]}), "two": {"type": "array", "items": {"$ref": "#/$defs/one"}}},
        **fields(
            r={"allOf": [{"$ref": "#/$defs/two"}], "default": []}, s={"$ref": "#/$defs/one", "description": "again"}
        ),
    },
    "one of them there": {
        "properties": {"a": {"type": "null"}, "b": {"type": "null"}},
        "anyOf": [{"required": ["a"]}, {"required": ["b"]}],
        "additionalProperties": False,
    },
    "an author's whims": fields(
        a={"type": "boolean", "x-guidance": {"whitespace_flexible": True}, "title": "A", "nullable": False}
    )
    | {"x-guidance": {"whitespace_flexible": True, "lenient": True}, "$id": "https://example.com/x"},
}


@pytest.mark.parametrize("name", SCHEMAS)
def test_every_allowed_way_ends_in_one_call_that_fits(name: str, each: tuple[Chat, Forms]) -> None:
    chat, forms = each
    parameters, ended = SCHEMAS[name], 0
    for seed in range(30):
        form = forms.for_(MustCall(tool="t-1"), offering(**{"t-1": parameters, "other": {}}))
        ids = [token for piece, _ in wander(form, Random(seed)) for token in piece]
        if not form.ended:
            continue  # cut by length
        ended += 1
        assert ids[-1] == chat.end
        said = parse(chat.decode(ids))
        assert isinstance(said, ToolCalls), said
        (call,) = said.calls
        assert (call.name, said.text) == ("t-1", "")
        arguments = json.loads(call.arguments)
        Draft202012Validator(parameters).validate(arguments)
    assert ended >= 3


@pytest.mark.parametrize("name", SCHEMAS)
def test_json_that_fits(name: str, each: tuple[Chat, Forms]) -> None:
    chat, forms = each
    for seed in range(10):
        form = forms.for_(MustFit(schema=json.dumps(SCHEMAS[name])), None)
        ids = [token for piece, _ in wander(form, Random(seed)) for token in piece]
        if form.ended:
            value = json.loads(chat.decode(ids))
            Draft202012Validator(SCHEMAS[name]).validate(value)


@pytest.mark.parametrize("name", SCHEMAS)
def test_what_is_forced_is_how_the_tokenizer_cuts_the_final_text(name: str, each: tuple[Chat, Forms]) -> None:
    """The text of any way through the form, written again as the tokenizer cuts it, passes with every forced token."""
    chat, forms = each
    for seed in range(10):
        tools = offering(first=SCHEMAS[name], second=SCHEMAS[name])
        form = forms.for_(MustCall(), tools)
        ids = [token for piece, _ in wander(form, Random(seed)) for token in piece]
        if form.ended:
            follow(forms.for_(MustCall(), tools), [*chat.encode(chat.decode(ids)), chat.end])


def test_arguments_stand_in_the_order_that_calls_are_learned_in(real: tuple[Chat, Forms]) -> None:
    chat, forms = real
    parameters = fields(zeta={"type": "null"}, alpha={"const": {"y": 1, "x": "é"}}, Beta={"type": "null"})
    call = ToolUse(name="t", arguments='{"Beta":null,"alpha":{"x":"é","y":1},"zeta":null}')
    ids = canonical_ids(chat, call)
    form = forms.for_(MustCall(), offering(t=parameters))
    assert form.forced() == ids
    assert list(form.begins) == ids


def test_json_keeps_the_order_of_its_schema(real: tuple[Chat, Forms]) -> None:
    chat, forms = real
    form = forms.for_(MustFit(schema=json.dumps(fields(zeta={"const": 1}, alpha={"const": 2}))), None)
    assert chat.decode(form.forced()) == '{"zeta": 1, "alpha": 2}'


def test_a_call_begins_before_anything_is_chosen(real: tuple[Chat, Forms]) -> None:
    chat, forms = real
    named = forms.for_(MustCall(tool="issue_refund"), tools_of(ACME))
    assert chat.decode(named.begins) == '<tool_call>\n{"name": "issue_refund", "arguments": {"amount":'
    free = forms.for_(MustCall(), tools_of(ACME))
    assert chat.decode(free.begins) == '<tool_call>\n{"name": "'


def test_a_token_that_is_not_allowed_is_refused(small: tuple[Chat, Forms]) -> None:
    chat, forms = small
    form = forms.for_(MustCall(), tools_of(ACME))
    with pytest.raises(RowFailed):
        form.take(chat.end)
    ended = forms.for_(MustFit(schema='{"const": 1}'), None)
    for token in ended.forced():
        ended.take(token)
    assert ended.ended and ended.forced() == []
    with pytest.raises(RowFailed):
        ended.take(chat.end)


NO_TOOLS = {"none": None, "an empty list": "[]", "no list": "{}", "no JSON": "[", "deep": "[" * 5_000, "null": "[null]"}


@pytest.mark.parametrize("tools", NO_TOOLS.values(), ids=NO_TOOLS)
def test_a_call_needs_tools(tools: str | None, small: tuple[Chat, Forms]) -> None:
    with pytest.raises(BadQuestion):
        small[1].for_(MustCall(), tools)


def nested(levels: int) -> dict[str, Any]:
    schema: dict[str, Any] = {"type": "string"}
    for _ in range(levels):
        schema = {"type": "array", "items": schema}
    return schema


def doubled(levels: int) -> dict[str, Any]:
    """Twice as large at each level, once its references are written out."""
    levels_ = {f"d{i}": fields(a={"$ref": f"#/$defs/d{i + 1}"}, b={"$ref": f"#/$defs/d{i + 1}"}) for i in range(levels)}
    return {"$defs": {**levels_, f"d{levels}": {"type": "string"}}, **fields(a={"$ref": "#/$defs/d0"})}


BAD: dict[str, Any] = {
    "another tool": {"other": {}},
    "a list": {"t": []} | {"t": ["a"]},
    "text": {"t": "object"},
    "parameters of a string": {"t": {"type": "string"}},
    "a name of nothing": {"": {}},
    "half a letter": {"\ud800": {}},
    "half a letter within": {"t": fields(a={"const": "\ud800"})},
    "40 deep": {"t": fields(a=nested(40))},
    "elsewhere": {"t": fields(a={"$ref": "https://example.com/schema"})},
    "a file": {"t": fields(a={"$ref": "file:///etc/passwd"})},
    "nowhere": {"t": fields(a={"$ref": "#/$defs/none"})},
    "itself": {"t": fields(a={"$ref": "#"})},
    "a circle": {
        "t": {"$defs": {"a": {"$ref": "#/$defs/b"}, "b": {"$ref": "#/$defs/a"}}, **fields(a={"$ref": "#/$defs/a"})}
    },
    "doubling": {"t": doubled(25)},
    "a hundred thousand alternatives": {"t": fields(a={"enum": [f"v{i}" for i in range(100_000)]})},
    "many alternatives": {"t": fields(a={"anyOf": [{"const": i} for i in range(6_000)]})},
    "not": {"t": fields(a={"not": {"type": "string"}})},
    "if": {"t": fields(a={"if": {}, "then": False})},
    "unique": {"t": fields(a={"type": "array", "uniqueItems": True})},
    "one of two that overlap": {"t": fields(a={"oneOf": [{"type": "string"}, {"minLength": 1}]})},
    "a type that is none": {"t": fields(a={"type": "decimal"})},
    "a type that is a number": {"t": fields(a={"type": 7})},
    "properties that are none": {"t": {"properties": [1]}},
    "required that is none": {"t": {"properties": {}, "required": 7}},
    "a length of 2^70": {"t": fields(a={"type": "string", "maxLength": 2**63})},
    "a length below": {"t": fields(a={"type": "string", "minLength": -1})},
    "a large step": {"t": fields(a={"type": "integer", "multipleOf": 999_983})},
    "a fine step": {"t": fields(a={"multipleOf": 1e-300})},
    "no step": {"t": fields(a={"multipleOf": True})},
    "many properties": {"t": {"properties": {f"p{i}": {"type": "null"} for i in range(2_000)}}},
    "a pattern of twenty": {"t": fields(a={"allOf": [{"pattern": f".*{c}.*"} for c in "abcdefghijklmnopqrst"]})},
    "a length beside a choice": {"t": fields(a={"enum": ["a", "abc"], "minLength": 2})},
    "a choice twice": {"t": fields(a={"allOf": [{"enum": ["a", "b"]}, {"enum": ["b", "c"]}]})},
    "closed in one part": {"t": fields(a={"allOf": [fields(b={}), {"properties": {"c": {}}}]})},
    "no way": {"t": fields(a=False)},
    "crossed bounds": {"t": fields(a={"type": "integer", "minimum": 5, "maximum": 4})},
    "a bound out of reach": {"t": fields(a={"type": "number", "minimum": 1e300})},
    "a pattern that is none": {"t": fields(a={"type": "string", "pattern": "(["})},
    "a pattern that looks back": {"t": fields(a={"type": "string", "pattern": r"^(a)\1$"})},
    "a pattern that looks ahead": {"t": fields(a={"type": "string", "pattern": "^(?!a)"})},
    "a long pattern": {"t": fields(a={"type": "string", "pattern": "a?" * 5_000})},
    "a deep pattern": {"t": fields(a={"type": "string", "pattern": "(" * 490 + ")" * 490})},
}


@pytest.mark.parametrize("name", BAD)
def test_what_nothing_can_be_held_to_is_a_bad_question(name: str, small: tuple[Chat, Forms]) -> None:
    tools = offering(**BAD[name])
    for _ in range(2):  # the second time as it was judged before
        with pytest.raises(BadQuestion) as refused:
            small[1].for_(MustCall(tool=next(iter(BAD[name])) if name != "another tool" else "t"), tools)
    assert len(str(refused.value)) < 1_000


@pytest.mark.parametrize(
    "name", [name for name in BAD if name not in ("another tool", "a name of nothing", "half a letter")]
)
def test_nor_can_json(name: str, small: tuple[Chat, Forms]) -> None:
    parameters = BAD[name]["t"]
    if name == "parameters of a string":
        return
    with pytest.raises(BadQuestion):
        small[1].for_(MustFit(schema=json.dumps(parameters)), None)


PLACES: dict[str, tuple[dict[str, Any], str]] = {
    "a type": (fields(a=fields(b={"type": "strng"})), r"at 'a\.b': 'strng' is no type; there are object, array"),
    "one of its types": (fields(a={"type": ["string", "nul"]}), "at 'a': 'nul' is no type"),
    "the whole": ({"type": "decimal"}, "the schema: 'decimal' is no type"),
    "an item's": (fields(a={"type": "array", "items": fields(b={"type": "x"})}), r"at 'a\.\[\]\.b': 'x' is no type"),
    "a pattern": (
        fields(a={"type": "string", "pattern": "[a"}),
        r"at 'a': the pattern '\[a' .*unclosed character class",
    ),
    "a look": (fields(a={"type": "string", "pattern": "(?=a)"}), r"at 'a': the pattern '\(\?=a\)' .*look-around"),
    "a name's": ({"type": "object", "patternProperties": {"[a": {"type": "null"}}}, r"the pattern '\[a' .*unclosed"),
    "two": (fields(a={"oneOf": [{"type": "string"}, {"minLength": 1}]}), "at 'a': more than one part of the 'oneOf'"),
}


@pytest.mark.parametrize("name", PLACES)
def test_a_schema_s_fault_is_told_with_its_word_and_its_place(name: str, small: tuple[Chat, Forms]) -> None:
    schema, told = PLACES[name]
    with pytest.raises(BadQuestion, match=told):
        small[1].for_(MustFit(schema=json.dumps(schema)), None)


def test_one_of_parts_that_cannot_both_fit_is_held_to(small: tuple[Chat, Forms]) -> None:
    kinds = {"oneOf": [fields(kind={"const": "a"}), fields(kind={"const": "b"}, of={"type": "integer"})]}
    assert not small[1].for_(MustFit(schema=json.dumps(fields(a=kinds))), None).ended


def test_what_has_to_be_proved_of_patterns_is_bounded(small: tuple[Chat, Forms]) -> None:
    null = {"type": "null"}
    patterns = {f"^(k|a|b){{{i}}}$": null for i in range(1, 10)}
    few, names = dict(list(patterns.items())[:8]), {f"k{i}": null for i in range(200)}
    for schema, why in (
        ({"patternProperties": patterns}, "9 patternProperties, and at most 8"),
        ({"patternProperties": few, "properties": names}, "patterns times names are 1000 at most"),
        (fields(**{f"o{i}": {"patternProperties": few} for i in range(16)}), "patterns times names are 1000 at most"),
    ):
        with pytest.raises(BadQuestion, match=why):
            small[1].for_(MustFit(schema=json.dumps({"type": "object"} | schema)), None)
    small[1].for_(MustFit(schema=json.dumps({"type": "object", "patternProperties": few})), None)


HARD: dict[str, dict[str, Any]] = {
    "ways without end": {"pattern": "^(a+)+$"},
    "counted twice": {"pattern": "^((a|b){0,100}c){0,100}$"},
    "far apart": {"pattern": "(.*a.{500}b.*)|(.*c.{400}d.*)"},
    "many states": {"pattern": "^[ab]*a[ab]{200}$"},
    "any letters": {"pattern": r"^[\p{L}\w]{1,1000}$"},
    "long": {"type": "string", "minLength": 10**9},
    "many": {"type": "array", "minItems": 10**9, "items": {"type": "integer"}},
    "lengths": {"anyOf": [{"type": "string", "minLength": i} for i in range(300)]},
    "optional": {"type": "object", "properties": {f"p{i}": {"type": "string"} for i in range(400)}},
    "words": {"type": "string", "enum": [f"value number {i}" for i in range(2_000)]},
    "multiples": {"type": "integer", "multipleOf": 997},
}


@pytest.mark.parametrize("name", HARD)
def test_hard_work_is_bounded_and_ends_the_row_alone(name: str, small: tuple[Chat, Forms]) -> None:
    """Whatever a grammar costs at one token, the answer goes on or falls with a reason; nothing else is thrown."""
    try:
        form = small[1].for_(MustCall(), offering(t=fields(a=HARD[name])))
        for _ in wander(form, Random(0)):
            pass
    except BadQuestion as refused:
        assert 0 < len(str(refused)) < 1_000


def test_masks_bar_all_that_no_row_may_say_and_nothing_else(each: tuple[Chat, Forms]) -> None:
    chat, forms = each
    vocabulary = len(chat.tokenizer) + 75  # models have chances for more tokens than there are
    logits = torch.randn(3, vocabulary)
    form = forms.for_(MustCall(), tools_of(ACME))
    before = logits.clone()
    masked, fell = mask_logits(logits, [None, form, None])
    assert not fell and torch.equal(logits, before)
    assert torch.equal(masked[0], logits[0]) and torch.equal(masked[2], logits[2])
    open_ = masked[1].isfinite()
    assert [bool(open_[token]) for token in range(len(chat.tokenizer))] == [
        may_come(form, token) for token in range(len(chat.tokenizer))
    ]
    assert not open_[len(chat.tokenizer) :].any()
    assert torch.equal(masked[1][open_], logits[1][open_])
    assert mask_logits(logits, [None, None, None]).logits is logits


class Falls:
    def allowed(self) -> Any:
        raise BadQuestion("too much work")


def test_a_row_whose_form_cannot_be_told_falls_alone(small: tuple[Chat, Forms]) -> None:
    form = small[1].for_(MustCall(), tools_of(ACME))
    logits = torch.randn(2, len(small[0].tokenizer))
    masked, fell = mask_logits(logits, [Falls(), form])
    assert list(fell) == [0] and isinstance(fell[0], Refused)
    assert masked[1].isinf().any()


def test_grammars_are_compiled_once_kept_and_renewed(
    small: tuple[Chat, Forms], monkeypatch: pytest.MonkeyPatch
) -> None:
    forms = Forms.of(small[0])
    compiled: list[object] = []
    import gpu_workers.serve.forms.form as module

    real = module._compiled
    monkeypatch.setattr(module, "_compiled", lambda *how: compiled.append(how) or real(*how))
    for _ in range(WORN):
        forms.for_(MustFit(schema='{"type": "null"}'), "[]")
    assert len(compiled) == 1
    forms.for_(MustFit(schema='{"type": "null"}'), None)
    assert len(compiled) == 2
    for i in range(KEPT):
        forms.for_(MustFit(schema=json.dumps({"const": i})), None)
    assert len(forms._kept) == KEPT


def test_an_answer_that_uses_a_grammars_states_up_harms_no_later_one(
    small: tuple[Chat, Forms], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nor one of another owner that is under way."""
    import gpu_workers.serve.forms.form as module

    monkeypatch.setattr(module, "STATES", 300)
    chat, forms = small[0], Forms.of(small[0])
    must = MustFit(schema=json.dumps(fields(text={"type": "string", "maxLength": 5_000})))
    fine = [*chat.encode('{"text": "Hi"}'), chat.end]
    others = forms.for_(must, None, "globex")
    with pytest.raises(BadQuestion, match="too many states"):
        evil = forms.for_(must, None, "acme")
        for token in chat.encode('{"text": "' + "a" * 4_000):
            evil.allowed()
            evil.take(token)
    follow(others, fine)
    follow(forms.for_(must, None, "acme"), fine)


def test_no_owner_drives_the_grammars_of_others_out(small: tuple[Chat, Forms]) -> None:
    forms = Forms.of(small[0])
    forms.for_(MustFit(schema='{"const": 0}'), None, "acme")
    for i in range(KEPT + 3):
        forms.for_(MustFit(schema=json.dumps({"const": i})), None, "globex")
    assert [key.owner for key in forms._kept].count("acme") == 1 and len(forms._kept) == KEPT


def test_many_threads_may_ask_at_once(small: tuple[Chat, Forms]) -> None:
    forms, wrong = Forms.of(small[0]), list[BaseException]()

    def ask(seed: int) -> None:
        try:
            for i in range(10):
                form = forms.for_(MustCall(), offering(t=fields(**{f"f{i % 3}": {"type": "boolean"}})))
                for _ in wander(form, Random(seed)):
                    pass
                assert form.ended
        except BaseException as error:
            wrong.append(error)

    threads = [threading.Thread(target=ask, args=(seed,)) for seed in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong
