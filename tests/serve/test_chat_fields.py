"""What a chat request may ask for reaches the engine, and comes back in OpenAI's shape; everything else is a 400."""

from __future__ import annotations

import json
import math
from typing import Any

import httpx
import msgspec
import openai
import pytest
from pydantic import BaseModel

from gpu_workers.serve.port import MAX_STOPS, STOP_LETTERS, Answer, MustCall, MustFit
from rillfold.v1.door import NO_OBJECT
from schemas.company import ToolUse
from tests.support.engine import FakeEngine
from tests.support.listening import OPERATOR, Listening

HELLO: Any = [{"role": "user", "content": "Who?"}]
ID = {"type": "object", "properties": {"id": {"type": "string"}}, "required": ["id"], "additionalProperties": False}
TOOLS: Any = [
    {"type": "function", "function": {"name": "lookup", "parameters": ID}},
    {"type": "function", "function": {"name": "refund", "parameters": ID}},
]


def says(text: str) -> Answer:
    return Answer(id="chatcmpl-1", text=text, content=text, finish_reason="length", model="base", adapter=None,
                  prompt_tokens=3, completion_tokens=5)  # fmt: skip


@pytest.fixture
def engine() -> FakeEngine:
    return FakeEngine(says("Once, there was Zoë. The end. Or not."))


async def streamed(client: openai.AsyncOpenAI, **given: Any) -> list[Any]:
    stream = await client.chat.completions.create(model="base", messages=HELLO, stream=True, **given)
    return [chunk.choices[0] async for chunk in stream if chunk.choices]


@pytest.mark.parametrize("stop", [" The", [" Or", " The"], ["nowhere"], [], None])
async def test_stops_end_the_answer(stop: Any, engine: FakeEngine, client: openai.AsyncOpenAI) -> None:
    whole = (await client.chat.completions.create(model="base", messages=HELLO, stop=stop)).choices[0]
    chunks = await streamed(client, stop=stop)
    cut = stop not in (["nowhere"], [], None)
    text = "Once, there was Zoë." if cut else "Once, there was Zoë. The end. Or not."
    assert whole.message.content == "".join(chunk.delta.content or "" for chunk in chunks) == text
    assert whole.finish_reason == chunks[-1].finish_reason == ("stop" if cut else "length")
    assert engine.asked[0].stop == ((stop,) if isinstance(stop, str) else tuple(stop or ()))


@pytest.mark.parametrize("beside", [None, 0, 1, 5])
async def test_log_probabilities_whole_and_streamed(
    beside: int | None, engine: FakeEngine, client: openai.AsyncOpenAI
) -> None:
    given: dict[str, Any] = {"logprobs": True} | ({} if beside is None else {"top_logprobs": beside})
    whole = (await client.chat.completions.create(model="base", messages=HELLO, **given)).choices[0]
    chunks = await streamed(client, **given)
    assert whole.logprobs is not None and whole.logprobs.content and whole.logprobs.refusal is None
    tokens = whole.logprobs.content
    assert b"".join(bytes(token.bytes or ()) for token in tokens).decode() == whole.message.content
    assert {token.logprob for token in tokens} == {-0.25}
    assert {len(token.top_logprobs) for token in tokens} == {beside or 0}
    for token in tokens:
        assert all(isinstance(other.token, str) and other.logprob >= -9999.0 for other in token.top_logprobs)
    told = [token for chunk in chunks if chunk.logprobs for token in chunk.logprobs.content or ()]
    assert told == tokens
    assert sum(chunk.logprobs is not None for chunk in chunks) > 3, "they come with the text, not behind it"
    assert engine.asked[0].logprobs == (beside or 0)


async def test_without_logprobs_there_are_none(engine: FakeEngine, client: openai.AsyncOpenAI) -> None:
    whole = await client.chat.completions.create(model="base", messages=HELLO, logprobs=False, top_logprobs=0)
    assert whole.choices[0].logprobs is None and engine.asked[0].logprobs is None
    assert all(chunk.logprobs is None for chunk in await streamed(client))


async def test_the_draw_is_narrowed(engine: FakeEngine, client: openai.AsyncOpenAI) -> None:
    for top_k in (40, 0, -1):
        more = {"top_k": top_k, "min_p": 0.05}
        await client.chat.completions.create(model="base", messages=HELLO, temperature=1, top_p=0.9, extra_body=more)
    assert [question.top_k for question in engine.asked] == [40, 0, 0]
    assert {(question.min_p, question.top_p, question.temperature) for question in engine.asked} == {(0.05, 0.9, 1.0)}


CHOICES: list[tuple[Any, MustCall | None, str | None]] = [
    ("none", None, None),
    ("auto", None, None),
    ("required", MustCall(), "lookup"),
    ({"type": "function", "function": {"name": "refund"}}, MustCall(tool="refund"), "refund"),
]


@pytest.mark.parametrize(("choice", "must", "called"), CHOICES)
async def test_a_tool_choice_decides_whether_and_what_is_called(
    choice: Any, must: MustCall | None, called: str | None, engine: FakeEngine, client: openai.AsyncOpenAI
) -> None:
    given: dict[str, Any] = {"tools": TOOLS, "tool_choice": choice, "parallel_tool_calls": False}
    whole = (await client.chat.completions.create(model="base", messages=HELLO, **given)).choices[0]
    chunks = await streamed(client, **given, logprobs=True)
    assert engine.asked[0].must == must
    assert (engine.asked[0].tools is None) == (choice == "none")
    told = [call for chunk in chunks for call in chunk.delta.tool_calls or ()]
    assert [call.function.name for call in told] == ([called] if called else [])
    assert [call.function.name for call in whole.message.tool_calls or ()] == ([called] if called else [])  # type: ignore[union-attr]
    if called:
        assert json.loads(told[0].function.arguments) == {"id": "s"}
        assert whole.finish_reason == chunks[-1].finish_reason == "tool_calls"
        held = [token.token for chunk in chunks if chunk.logprobs for token in chunk.logprobs.content]
        assert "".join(held).startswith("<tool_call>"), "chances of what is told as a call come with it"


async def test_one_call_where_several_are_not_wanted() -> None:
    calls = tuple(ToolUse(name=name, arguments="{}") for name in ("lookup", "refund"))
    answer = Answer(id="a", text="<tool_call>…", content="", calls=calls, finish_reason="stop", model="base",
                    adapter=None, prompt_tokens=1, completion_tokens=1)  # fmt: skip
    async with (
        Listening(FakeEngine(answer)) as url,
        openai.AsyncOpenAI(base_url=f"{url}/v1", api_key=OPERATOR.token) as client,
    ):
        for parallel, count in ((True, 2), (False, 1)):
            given: dict[str, Any] = {"tools": TOOLS, "parallel_tool_calls": parallel}
            whole = (await client.chat.completions.create(model="base", messages=HELLO, **given)).choices[0]
            told = [call for chunk in await streamed(client, **given) for call in chunk.delta.tool_calls or ()]
            assert len(whole.message.tool_calls or ()) == len(told) == count


class Verdict(BaseModel):
    text: str
    sure: bool


async def test_an_answer_in_a_form(engine: FakeEngine, client: openai.AsyncOpenAI) -> None:
    parsed = await client.chat.completions.parse(model="base", messages=HELLO, response_format=Verdict)
    assert parsed.choices[0].message.parsed == Verdict(text="s", sure=True)
    must = engine.asked[0].must
    assert isinstance(must, MustFit)
    schema = json.loads(must.schema)
    assert schema["required"] == ["text", "sure"] and schema["additionalProperties"] is False
    whole = await client.chat.completions.create(model="base", messages=HELLO, response_format={"type": "json_object"})
    assert json.loads(whole.choices[0].message.content or "") == {}
    told = await streamed(client, response_format={"type": "json_object"})
    assert "".join(chunk.delta.content or "" for chunk in told) == "{}"
    free = await client.chat.completions.create(model="base", messages=HELLO, response_format={"type": "text"})
    assert free.choices[0].message.content and engine.asked[-1].must is None
    form: Any = {"response_format": {"type": "json_object"}, "tools": TOOLS}
    await client.chat.completions.create(model="base", messages=HELLO, tool_choice="none", **form)
    assert isinstance(engine.asked[-1].must, MustFit) and engine.asked[-1].tools is None
    await client.chat.completions.create(model="base", messages=HELLO, tool_choice="required", **form)
    assert isinstance(engine.asked[-1].must, MustCall)


def fit(**schema: Any) -> dict[str, Any]:
    return {"response_format": {"type": "json_schema", "json_schema": schema}}


def nested(depth: int) -> dict[str, Any]:
    schema: dict[str, Any] = {"type": "string"}
    for _ in range(depth):
        schema = {"type": "array", "items": schema}
    return schema


WRONG: list[tuple[dict[str, Any], str]] = [
    ({"n": 2}, "n"),
    ({"logit_bias": {"5": 1}}, "logit_bias"),
    ({"repetition_penalty": 1.3}, "repetition_penalty"),
    ({"guided_json": {}}, "guided_json"),
    ({"reasoning_effort": "high"}, "reasoning_effort"),
    ({"function_call": {"name": "lookup"}}, "function_call"),
    ({"stop": ""}, "stop.0"),
    ({"stop": ["a", ""]}, "stop.1"),
    ({"stop": ["a"] * (MAX_STOPS + 1)}, "stop"),
    ({"stop": "a" * (STOP_LETTERS + 1)}, "stop.0"),
    ({"stop": 7}, "stop"),
    ({"stop": {"a": 1}}, "stop"),
    ({"stop": [["a"]]}, "stop.0"),
    ({"logprobs": 5}, "logprobs"),
    ({"top_logprobs": 3}, "top_logprobs"),
    ({"logprobs": True, "top_logprobs": 21}, "top_logprobs"),
    ({"logprobs": True, "top_logprobs": -1}, "top_logprobs"),
    ({"logprobs": True, "top_logprobs": 1.5}, "top_logprobs"),
    ({"top_k": -2}, "top_k"),
    ({"top_k": 2**40}, "top_k"),
    ({"top_k": "many"}, "top_k"),
    ({"min_p": -0.1}, "min_p"),
    ({"min_p": 1.1}, "min_p"),
    ({"min_p": []}, "min_p"),
    ({"max_tokens": 0}, "max_tokens"),
    ({"max_tokens": -5}, "max_tokens"),
    ({"tool_choice": "required"}, "tool_choice"),
    ({"tools": TOOLS, "tool_choice": "sometimes"}, "tool_choice"),
    ({"tools": TOOLS, "tool_choice": {"type": "function", "function": {"name": "other"}}}, "tool_choice"),
    ({"tools": TOOLS, "tool_choice": {"type": "function", "function": {"name": ["lookup"]}}}, "tool_choice"),
    ({"tools": TOOLS, "tool_choice": {"type": "allowed_tools"}}, "tool_choice"),
    ({"tools": TOOLS, "tool_choice": {}}, "tool_choice"),
    ({"tools": [{"name": "lookup"}], "tool_choice": "required"}, "tools"),
    ({"tools": [{"type": "function", "function": "lookup"}], "tool_choice": "required"}, "tools"),
    ({"tools": [{"type": "custom", "function": {"name": "a"}}], "tool_choice": "required"}, "tools"),
    ({"parallel_tool_calls": "perhaps"}, "parallel_tool_calls"),
    ({"response_format": "json"}, "response_format"),
    ({"response_format": {"type": "xml"}}, "response_format.type"),
    ({"response_format": {"type": "json_schema"}}, "response_format.json_schema"),
    (fit(name="x"), "response_format.json_schema.schema"),
    (fit(name="", schema={}), "response_format.json_schema.name"),
    (fit(name="a b", schema={}), "response_format.json_schema.name"),
    (fit(name="x", schema=[]), "response_format.json_schema.schema"),
    (fit(name="x", schema={"description": "d" * (1 << 20)}), "response_format.json_schema.schema"),
    ({"tools": TOOLS, "response_format": {"type": "json_object"}}, "response_format"),
]


@pytest.mark.parametrize(("wrong", "param"), WRONG, ids=lambda value: json.dumps(value)[:60])
@pytest.mark.parametrize("stream", [False, True])
async def test_what_is_malformed_is_a_400_that_names_it(
    wrong: dict[str, Any], param: str, stream: bool, engine: FakeEngine, client: openai.AsyncOpenAI
) -> None:
    given = {"model": "base", "messages": HELLO, "stream": stream}
    with pytest.raises(openai.BadRequestError) as refused:
        await client.chat.completions.create(**given, extra_body=wrong)
    assert refused.value.param == param and refused.value.type == "invalid_request_error"
    assert refused.value.code and len(refused.value.message) < 1_000
    assert engine.asked == []


HARMLESS: dict[str, Any] = {
    "user": "u", "metadata": {"a": "b"}, "store": True, "service_tier": "auto", "safety_identifier": "s",
    "prompt_cache_key": "k", "prompt_cache_retention": "24h", "prediction": {"type": "content", "content": "x"},
    "reasoning_effort": "none", "n": 1, "logit_bias": {}, "presence_penalty": 0, "functions": [], "of_nobody": None,
}  # fmt: skip


async def test_what_openai_clients_send_and_changes_no_answer_is_taken(
    engine: FakeEngine, client: openai.AsyncOpenAI
) -> None:
    for given in (HARMLESS, {}):
        await client.chat.completions.create(model="base", messages=HELLO, seed=1, extra_body=given)
    first, plain = (msgspec.structs.replace(asked, id="") for asked in engine.asked)
    assert first == plain


@pytest.mark.parametrize(
    ("field", "told"),
    [
        ("temprature", "did you mean temperature"),
        ("max_token", "did you mean max_tokens"),
        ("ignore_eos", "leave it out"),
        ("verbosity", "leave it out"),
        ("x" * 5_000, "leave it out"),
    ],
)
async def test_a_field_that_nobody_reads_is_refused_by_name(
    field: str, told: str, engine: FakeEngine, client: openai.AsyncOpenAI
) -> None:
    with pytest.raises(openai.BadRequestError, match=told) as refused:
        await client.chat.completions.create(model="base", messages=HELLO, extra_body={field: 1})
    assert refused.value.param == field[:80] and refused.value.code == "unknown_parameter"
    assert len(refused.value.message) < 300 and engine.asked == []


async def test_a_stop_at_the_first_letter_leaves_a_text_without_letters(client: openai.AsyncOpenAI) -> None:
    whole = (await client.chat.completions.create(model="base", messages=HELLO, stop="Once")).choices[0]
    assert (whole.message.content, whole.finish_reason) == ("", "stop")


@pytest.mark.parametrize("body", [b"{nope", b"[]", b"", b"7", b"null", b'"text"'])
async def test_a_body_that_is_no_object_is_told_in_plain_words(body: bytes, url: str) -> None:
    headers = {"Authorization": f"Bearer {OPERATOR.token}", "Content-Type": "application/json"}
    async with httpx.AsyncClient(base_url=url, headers=headers) as http:
        answer = await http.post("/v1/chat/completions", content=body)
    told = {"message": NO_OBJECT, "type": "invalid_request_error", "param": None}
    assert (answer.status_code, answer.json()) == (400, {"error": told | {"code": "invalid_json"}})


async def test_routes_that_there_are_not_are_told_in_openai_s_shape(client: openai.AsyncOpenAI) -> None:
    with pytest.raises(openai.NotFoundError, match=r"POST /v1/completions.*POST /v1/chat/completions") as gone:
        await client.completions.create(model="base", prompt="x")
    assert (gone.value.code, gone.value.type, gone.value.param) == ("unknown_url", "invalid_request_error", None)
    with pytest.raises(openai.APIStatusError, match="GET /v1/chat/completions") as wrong:
        await client.get("/chat/completions", cast_to=object)
    assert wrong.value.status_code == 405 and "POST" in wrong.value.response.headers["allow"]


RAW = [
    b'{"stop": "\\ud800"}',
    b'{"stop": ["\\udfff\\ud800"]}',
    b'{"min_p": NaN}',
    b'{"top_k": 1e400}',
    b'{"min_p": -Infinity}',
    b'{"top_logprobs": 99999999999999999999999999}',
    json.dumps(fit(name="x", schema=nested(3))).encode().replace(b'"string"', b"[" * 5_000 + b"]" * 5_000),
    json.dumps({"tools": [{"type": "function", "function": {"name": "a"}}]})
    .encode()
    .replace(b'"a"', b'{"a":' * 5_000 + b"1" + b"}" * 5_000),
]


@pytest.mark.parametrize("raw", RAW, ids=lambda raw: raw[:30].decode())
async def test_what_no_client_would_send_is_a_400_too(raw: bytes, engine: FakeEngine, url: str) -> None:
    body = raw[:-1] + b', "model": "base", "messages": [{"role": "user", "content": "Who?"}]}'
    headers = {"Authorization": f"Bearer {OPERATOR.token}", "Content-Type": "application/json"}
    async with httpx.AsyncClient(base_url=url, headers=headers) as http:
        answer = await http.post("/v1/chat/completions", content=body)
    assert answer.status_code == 400, answer.text
    assert set(answer.json()["error"]) == {"message", "type", "param", "code"}
    assert engine.asked == []


async def test_a_deep_schema_is_read_or_refused_and_never_a_500(engine: FakeEngine, url: str) -> None:
    async with httpx.AsyncClient(base_url=url, headers={"Authorization": f"Bearer {OPERATOR.token}"}) as http:
        for depth in (10, 100, 200, 300, 400, 480):
            body = {"model": "base", "messages": HELLO, **fit(name="x", schema=nested(depth))}
            answer = await http.post("/v1/chat/completions", json=body)
            assert answer.status_code in (200, 400), (depth, answer.text)
    assert engine.asked, "a schema of some depth is read"


def test_a_chance_of_nothing_can_be_told() -> None:
    from gpu_workers.serve.port import Chance, Choice
    from rillfold.v1.told import logprobs

    odd = [Chance(token=b"\xf0\x9f", logprob=value) for value in (-math.inf, math.nan, -1.0, 1e-7)]
    told = logprobs(tuple(Choice(said=chance) for chance in odd))["content"]
    assert [each["logprob"] for each in told] == [-9999.0, -9999.0, -1.0, 0.0]
    assert told[0]["bytes"] == [0xF0, 0x9F] and json.dumps(told, allow_nan=False)
