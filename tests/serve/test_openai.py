"""The `openai` client against the serving app, unchanged: models, chat, streams, tools, errors, hanging up."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from itertools import product
from typing import Any

import httpx
import openai
import pytest
from prometheus_client import CollectorRegistry, generate_latest

from gpu_workers.serve.engines.embedded import EmbeddedEngine
from gpu_workers.serve.engines.start import EngineSetup, embedded
from gpu_workers.serve.port import Answer, Failure, OnSnippet, Outcome, Question
from gpu_workers.serve.schedule.rows import Limits
from rillfold.http.operator import COMPANY_HEADER
from rillfold.http.strict_json import VALUES
from rillfold.v1.figures import EngineMetrics
from schemas.company import ToolUse
from tests.support.engine import FakeEngine
from tests.support.listening import OPERATOR, Listening
from tests.support.raw_http import get, status, talk
from tests.support.workbench import CPU, Workbench, ask

HELLO: Any = [{"role": "user", "content": "Who?"}]


@pytest.fixture
async def engine(bench: Workbench) -> AsyncIterator[EmbeddedEngine]:
    serving = EngineSetup(device=CPU, limits=Limits(rows=4, waiting=8))
    async with embedded(str(bench.base), bench.root / "cache", serving) as engine:
        yield engine


async def test_base_and_adapters_are_models(
    bench: Workbench, engine: EmbeddedEngine, client: openai.AsyncOpenAI
) -> None:
    old, new = bench.adapter("acme/ops", 1, seed=2), bench.adapter("acme/ops", 2, seed=4)
    await engine.load(old)
    await engine.load(new)
    names = [model.id async for model in client.models.list()]
    assert names == [engine.model, "acme/ops", "acme/ops@1", "acme/ops@2"]
    assert (await client.models.retrieve("acme/ops@1")).owned_by == "acme"
    question = ask("Who?", max_tokens=12)
    for model, spec in ((engine.model, None), ("acme/ops@1", old), ("acme/ops", new)):
        answer = await client.chat.completions.create(model=model, messages=HELLO, max_tokens=12)
        expected = bench.peft(spec, question)
        assert (answer.choices[0].message.content or "") == expected, model
        assert answer.usage is not None and answer.model == model
        assert answer.usage.prompt_tokens == len(bench.chat.prompt(question.messages))
        assert 0 < answer.usage.completion_tokens <= 12


async def test_a_stream_says_the_same_piece_by_piece(
    bench: Workbench, engine: EmbeddedEngine, client: openai.AsyncOpenAI
) -> None:
    await engine.load(bench.adapter("acme/loud", seed=6))
    given: dict[str, Any] = {"model": "acme/loud", "messages": HELLO, "max_tokens": 30}
    whole = await client.chat.completions.create(**given)
    stream = await client.chat.completions.create(**given, stream=True, stream_options={"include_usage": True})
    chunks = [chunk async for chunk in stream]
    told = [chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices]
    assert "".join(told) == whole.choices[0].message.content
    assert len([piece for piece in told if piece]) > 1
    assert [chunk.choices[0].finish_reason for chunk in chunks if chunk.choices][-1] == whole.choices[0].finish_reason
    told_of, first = chunks[-1].usage, whole.usage
    assert told_of is not None and first is not None and told_of.prompt_tokens_details and first.prompt_tokens_details
    assert told_of.prompt_tokens_details.cached_tokens > first.prompt_tokens_details.cached_tokens == 0, (
        "it is read once"
    )
    told_of.prompt_tokens_details = first.prompt_tokens_details
    assert told_of == first


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("model", ["acme/nobody", "gpt-4", "", "acme/ops@9"])
async def test_an_unknown_model_is_a_404_and_never_the_base(
    model: str, stream: bool, bench: Workbench, engine: EmbeddedEngine, client: openai.AsyncOpenAI
) -> None:
    await engine.load(bench.adapter("acme/ops", 1, seed=2))
    with pytest.raises(openai.NotFoundError) as error:
        await client.chat.completions.create(model=model, messages=HELLO, stream=stream)
    assert error.value.code == "model_not_found" and error.value.param == "model"


@pytest.mark.parametrize(
    ("wrong", "param"),
    [
        ({"n": 2}, "n"),
        ({"presence_penalty": 0.5}, "presence_penalty"),
        ({"frequency_penalty": -1}, "frequency_penalty"),
        ({"logit_bias": {"7": 100}}, "logit_bias"),
        ({"temperature": 9}, "temperature"),
        ({"tool_choice": "required"}, "tool_choice"),
        ({"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "x"}}]}]}, "messages"),
        ({"messages": []}, "messages"),
    ],
)
async def test_what_is_not_honoured_is_refused(
    wrong: dict[str, Any], param: str, engine: EmbeddedEngine, client: openai.AsyncOpenAI
) -> None:
    with pytest.raises(openai.BadRequestError) as error:
        await client.chat.completions.create(**({"model": engine.model, "messages": HELLO} | wrong))
    assert error.value.param == param


async def test_seed_and_temperature_are_honoured(engine: EmbeddedEngine, client: openai.AsyncOpenAI) -> None:
    async def drawn(seed: int | None) -> str | None:
        answer = await client.chat.completions.create(
            model=engine.model, messages=HELLO, max_tokens=16, temperature=1.2, seed=seed
        )
        return answer.choices[0].message.content

    assert await drawn(5) == await drawn(5)
    assert len({await drawn(seed) for seed in (5, 6, None, None)}) == 4


async def test_a_client_that_leaves_frees_its_row(engine: EmbeddedEngine, client: openai.AsyncOpenAI) -> None:
    given: dict[str, Any] = {"model": engine.model, "messages": HELLO, "max_tokens": 900}
    stream = await client.chat.completions.create(**given, stream=True)
    async for _ in stream:
        break
    await stream.close()
    with pytest.raises(openai.APITimeoutError):
        await client.with_options(timeout=0.2).chat.completions.create(**given)
    async with asyncio.timeout(20):
        while engine.stats().running + engine.stats().waiting:  # noqa: ASYNC110
            await asyncio.sleep(0.01)


@pytest.mark.parametrize("stream", [False, True])
async def test_a_client_that_leaves_before_the_first_word_is_not_waited_for(stream: bool) -> None:
    gone = asyncio.Event()

    class Silent(FakeEngine):
        async def answer(self, question: Question, on_snippet: OnSnippet | None = None) -> Outcome:
            try:
                return await super().answer(question, on_snippet)
            finally:
                gone.set()

    engine = Silent(shut=True)
    async with Listening(engine) as url, httpx.AsyncClient(base_url=url, headers=BEARER) as http:
        with pytest.raises(httpx.ReadTimeout):
            await http.post("/v1/chat/completions", json=CHAT | {"stream": stream}, timeout=0.3)
        async with asyncio.timeout(10):
            await gone.wait()
    assert len(engine.asked) == 1


async def test_who_uses_its_tokens_up_hears_when_to_come_again_and_others_are_answered(bench: Workbench) -> None:
    serving = EngineSetup(device=CPU, limits=Limits(rows=4, waiting=8), company_tokens=60)
    async with embedded(str(bench.base), bench.root / "cache", serving) as engine, Listening(engine) as url:
        given: dict[str, Any] = {"model": engine.model, "messages": HELLO, "max_tokens": 50}

        def of(company: str | None) -> openai.AsyncOpenAI:
            headers = {COMPANY_HEADER: company} if company else None
            key = OPERATOR.token
            return openai.AsyncOpenAI(base_url=f"{url}/v1", api_key=key, max_retries=0, default_headers=headers)

        async with of("acme") as acme, of("globex") as globex, of(None) as operator:
            usages = []
            for _ in range(60):
                try:
                    usages.append((await acme.chat.completions.create(**given)).usage)
                except openai.RateLimitError as refused:
                    error = refused
                    break
            assert sum(usage.total_tokens for usage in usages if usage) >= 60
            assert error.code == "too_fast" and error.type == "rate_limit_error"
            assert 1 <= int(error.response.headers["retry-after"]) <= 120
            with pytest.raises(openai.RateLimitError):
                await acme.chat.completions.create(**given, stream=True)
            for other in (globex, operator):
                assert (await other.chat.completions.create(**given)).usage


async def test_who_hangs_up_pays_for_what_was_said(bench: Workbench) -> None:
    serving = EngineSetup(device=CPU, limits=Limits(rows=4, waiting=8), company_tokens=10_000)
    async with embedded(str(bench.base), bench.root / "cache", serving) as engine:
        engine.seen.clock = lambda: 0.0  # nothing comes again meanwhile
        question = ask("Who?", company="acme", max_tokens=900)
        asking = asyncio.create_task(engine.answer(question))
        async with asyncio.timeout(20):
            while not engine.stats().tokens:  # noqa: ASYNC110
                await asyncio.sleep(0.001)
        asking.cancel()
        await asyncio.gather(asking, return_exceptions=True)
        left = engine._questions._tokens.left("acme", 0.0)
        most = 10_000 - len(bench.chat.prompt(question.messages))
        assert most - 900 < left < most, "neither the guess nor nothing"


async def test_health_and_metrics_show_the_engine(bench: Workbench, engine: EmbeddedEngine, url: str) -> None:
    await engine.load(bench.adapter("acme/seen", 3, seed=2))
    async with httpx.AsyncClient(base_url=url) as http:
        assert (await http.get("/health")).json() == {"alive": True}
        bearer = {"Authorization": f"Bearer {OPERATOR.token}"}
        assert (await http.get("/metrics", headers=bearer)).status_code == 404
    registry = CollectorRegistry()
    registry.register(EngineMetrics(engine))
    metrics = generate_latest(registry).decode()
    assert f'rillfold_serve_adapter_bytes{{adapter="acme/seen",version="3"}} {engine.resident()[0].bytes}' in metrics
    assert "rillfold_serve_adapter_loads_total 1.0" in metrics
    assert 'rillfold_serve_adapters{tier="memory"} 1.0' in metrics
    async with openai.AsyncOpenAI(base_url=f"{url}/v1", api_key=OPERATOR.token) as client:
        asked = await client.chat.completions.create(model="acme/seen", messages=HELLO, max_tokens=4)
    metrics = generate_latest(registry).decode()
    assert 'rillfold_serve_first_token_seconds_count{who="operator"} 1.0' in metrics
    assert asked.usage is not None
    between = f'rillfold_serve_between_tokens_seconds_count{{who="operator"}} {asked.usage.completion_tokens - 1}.0'
    assert between in metrics


@pytest.mark.parametrize("content", ["", "I look it up.", "1 < 2 and <tool_ no call."])
async def test_tool_calls_are_told_whole_and_their_markup_never(content: str) -> None:
    call = ToolUse(name="lookup", arguments='{"id": "C-1"}')
    marked = f'{content}\n<tool_call>\n{{"name": "lookup", "arguments": {call.arguments}}}\n</tool_call>'
    answer = Answer(id="chatcmpl-1", text=marked, calls=(call,), content=content, finish_reason="stop", model="base",
                    adapter=None, prompt_tokens=1, completion_tokens=1)  # fmt: skip
    key = OPERATOR.token
    async with Listening(FakeEngine(answer)) as url, openai.AsyncOpenAI(base_url=f"{url}/v1", api_key=key) as client:
        whole = (await client.chat.completions.create(model="base", messages=HELLO)).choices[0]
        stream = await client.chat.completions.create(model="base", messages=HELLO, stream=True)
        deltas = [(chunk.choices[0].delta, chunk.choices[0].finish_reason) async for chunk in stream]
    assert whole.finish_reason == deltas[-1][1] == "tool_calls"
    assert (whole.message.content or "") == "".join(delta.content or "" for delta, _ in deltas) == content
    told = [call for delta, _ in deltas for call in delta.tool_calls or ()]
    (asked,) = whole.message.tool_calls or []
    assert asked.type == "function" and json.loads(asked.function.arguments) == {"id": "C-1"}
    assert told[0].function is not None and told[0].function.name == asked.function.name == "lookup"


CHAT: Any = {"model": "base", "messages": HELLO}
BEARER = {"Authorization": f"Bearer {OPERATOR.token}"}


async def test_the_operators_token_is_asked_for_before_the_body_is_read() -> None:
    engine = FakeEngine()
    async with Listening(engine) as url:
        for given, path in product((None, "wrong", OPERATOR.token[:-1]), ("/v1/chat/completions", "/v1/models")):
            for method in ("POST", "GET"):
                head = get(path, given, "Content-Length: 8000000", "Expect: 100-continue", method=method)
                answer = await talk(url, head, seconds=5)
                assert status(answer) == 401 and b"100 Continue" not in answer, answer
        assert status(await talk(url, get("/health"))) == 200
        assert engine.asked == []
        async with httpx.AsyncClient(base_url=url, headers=BEARER) as http:
            assert (await http.post("/v1/chat/completions", json=CHAT)).status_code == 200


FOREIGN = ["evil.example", "127.0.0.1.evil.example", "localhost.evil.example", "", "[", "127.0.0.1@evil.example:80"]


@pytest.mark.parametrize("host", FOREIGN)
async def test_a_page_in_a_browser_that_points_its_name_here_is_refused(host: str) -> None:
    async with Listening(FakeEngine()) as url:
        head = get("/v1/models", OPERATOR.token)
        assert status(await talk(url, head.replace(b"Host: 127.0.0.1", f"Host: {host}".encode()))) in (400, 421)
        for known in (b"127.0.0.1:8701", b"localhost", b"[::1]:1", b"10.0.0.7"):
            assert status(await talk(url, head.replace(b"Host: 127.0.0.1", b"Host: " + known))) == 200


async def test_the_engine_hears_for_which_company_the_api_asks() -> None:
    engine = FakeEngine()
    async with Listening(engine) as url, httpx.AsyncClient(base_url=url, headers=BEARER) as http:
        for company in ("acme", None):
            headers = {COMPANY_HEADER: company} if company else {}
            await http.post("/v1/chat/completions", json=CHAT, headers=headers)
        refused = await http.post("/v1/chat/completions", json=CHAT, headers={COMPANY_HEADER: "../x"})
    assert refused.status_code == 400
    assert [question.company for question in engine.asked] == ["acme", None]


async def test_odd_questions_are_4xx_and_reach_no_engine() -> None:
    engine = FakeEngine()
    bodies = [b"", b"{", b"[]", b"\xff", b"[" * 100_000, b'{"model": "\\ud800"}', b'{"model": "base", "messages": NaN}']
    digits = "9" * 5_000
    odd: list[Any] = [{"model": f"a/b@{digits}"}, {"seed": 2**70}, {"max_tokens": 2**40}, {"temperature": 1e300}]
    bodies += [json.dumps(CHAT | each).encode() for each in odd]
    async with Listening(engine) as url, httpx.AsyncClient(base_url=url, headers=BEARER) as http:
        for body in bodies:
            answer = await http.post("/v1/chat/completions", content=body, headers={"Content-Type": "application/json"})
            assert 400 <= answer.status_code < 500, (body[:80], answer.text)
            assert answer.json()["error"]["message"]
        wide = b'{"model": "base", "messages": [%b]}' % b",".join([b"0"] * VALUES)
        answer = await http.post("/v1/chat/completions", content=wide, headers={"Content-Type": "application/json"})
        assert (answer.status_code, answer.json()["error"]["code"]) == (400, "too_many_values")
        large = await http.post("/v1/chat/completions", content=b" " * (9 << 20))
        assert large.status_code == 413
    assert engine.asked == []


async def test_a_failure_of_any_name_is_no_500() -> None:
    class Failing(FakeEngine):
        async def answer(self, question: Question, on_snippet: OnSnippet | None = None) -> Outcome:
            return Failure(id=question.id, reason="of_a_new_kind", detail="d", again=bool(question.seed))

    async with Listening(Failing()) as url, httpx.AsyncClient(base_url=url, headers=BEARER) as http:
        for seed, code in ((0, 422), (1, 503)):
            answer = await http.post("/v1/chat/completions", json=CHAT | {"seed": seed})
            assert (answer.status_code, answer.headers.get("retry-after")) == (code, "1" if code == 503 else None)


YES_OR_NO: Any = {
    "type": "object",
    "properties": {"sure": {"type": "boolean"}},
    "required": ["sure"],
    "additionalProperties": False,
}
TOOLS: Any = [
    {"type": "function", "function": {"name": name, "description": "d", "parameters": YES_OR_NO}}
    for name in ("lookup", "refund")
]


async def whole_and_streamed(client: openai.AsyncOpenAI, **given: Any) -> tuple[Any, list[Any]]:
    whole = (await client.chat.completions.create(**given)).choices[0]
    stream = await client.chat.completions.create(**given, stream=True)
    return whole, [chunk.choices[0] async for chunk in stream if chunk.choices]


def text_of(chunks: list[Any]) -> str:
    return "".join(chunk.delta.content or "" for chunk in chunks)


async def test_the_engine_stops_where_it_is_told_to(engine: EmbeddedEngine, client: openai.AsyncOpenAI) -> None:
    given: dict[str, Any] = {"model": engine.model, "messages": HELLO, "max_tokens": 30, "temperature": 1.2, "seed": 5}
    free = (await client.chat.completions.create(**given)).choices[0].message.content or ""
    stop = next(free[n : n + 2] for n in range(2, len(free)) if free.find(free[n : n + 2]) == n)
    whole, chunks = await whole_and_streamed(client, **given, stop=["\x00never", stop])
    assert whole.message.content == free[: free.find(stop)] and whole.finish_reason == "stop"
    assert text_of(chunks).strip() == (whole.message.content or "").strip() and chunks[-1].finish_reason == "stop"


async def test_the_engines_chances_are_told_whole_and_streamed(
    engine: EmbeddedEngine, client: openai.AsyncOpenAI
) -> None:
    given: dict[str, Any] = {"model": engine.model, "messages": HELLO, "max_tokens": 12}
    whole, chunks = await whole_and_streamed(client, **given, logprobs=True, top_logprobs=3)
    tokens = whole.logprobs.content
    assert tokens and whole.message.content
    assert b"".join(bytes(token.bytes) for token in tokens).decode(errors="replace") == whole.message.content
    for token in tokens:
        assert len(token.top_logprobs) == 3 and token.logprob <= 0
        chances = [other.logprob for other in token.top_logprobs]
        assert chances == sorted(chances, reverse=True)
        assert token.logprob == chances[0], "greedy says the likeliest"
    told = [token for chunk in chunks if chunk.logprobs for token in chunk.logprobs.content]
    assert [token.bytes for token in told] == [token.bytes for token in tokens]


async def test_the_engine_is_held_to_a_form_and_to_a_call(engine: EmbeddedEngine, client: openai.AsyncOpenAI) -> None:
    given: dict[str, Any] = {"model": engine.model, "messages": HELLO, "max_tokens": 120}
    schema = {"type": "json_schema", "json_schema": {"name": "verdict", "schema": YES_OR_NO, "strict": True}}
    whole, chunks = await whole_and_streamed(client, **given, response_format=schema)
    assert set(json.loads(whole.message.content)) == {"sure"} and whole.finish_reason == "stop"
    assert json.loads(text_of(chunks)) == json.loads(whole.message.content)
    choices: list[tuple[Any, set[str]]] = [
        ("required", {"lookup", "refund"}),
        ({"type": "function", "function": {"name": "refund"}}, {"refund"}),
    ]
    for choice, names in choices:
        whole, chunks = await whole_and_streamed(client, **given, tools=TOOLS, tool_choice=choice)
        (call,) = whole.message.tool_calls
        assert call.function.name in names and set(json.loads(call.function.arguments)) == {"sure"}
        (told,) = [call for chunk in chunks for call in chunk.delta.tool_calls or ()]
        assert told.function.arguments == call.function.arguments
        assert whole.finish_reason == chunks[-1].finish_reason == "tool_calls"


@pytest.mark.parametrize(
    "schema", [{"type": "nothing"}, {"$ref": "#/nowhere"}, {"pattern": "(", "type": "string"}, {"minimum": "x"}]
)
async def test_a_schema_that_no_grammar_can_be_made_of_is_a_400(
    schema: Any, engine: EmbeddedEngine, client: openai.AsyncOpenAI
) -> None:
    form: Any = {"type": "json_schema", "json_schema": {"name": "x", "schema": schema}}
    with pytest.raises(openai.BadRequestError) as refused:
        await client.chat.completions.create(model=engine.model, messages=HELLO, response_format=form, max_tokens=4)
    assert refused.value.code == "bad_question"


async def test_the_engine_narrows_its_draw(engine: EmbeddedEngine, client: openai.AsyncOpenAI) -> None:
    given: dict[str, Any] = {"model": engine.model, "messages": HELLO, "max_tokens": 16}
    greedy = (await client.chat.completions.create(**given)).choices[0].message.content
    for narrow in ({"top_k": 1}, {"min_p": 1.0}):
        drawn = await client.chat.completions.create(**given, temperature=1.5, seed=3, extra_body=narrow)
        assert drawn.choices[0].message.content == greedy, narrow
    free = await client.chat.completions.create(**given, temperature=1.5, seed=3, extra_body={"top_k": 0})
    assert free.choices[0].message.content != greedy
