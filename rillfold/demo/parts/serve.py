"""Part 4: the same sentence to the base model and to both adapters, in one batch by topic, and by the OpenAI client."""

import asyncio
import time
from collections.abc import Mapping, Sequence

from openai import AsyncOpenAI

from rillfold.demo import data
from rillfold.demo.data import ACME, COMPANIES, GLOBEX
from rillfold.demo.stage import NotAsTold, Stage
from rillfold.event_log import first
from schemas.codec.codec import decode
from schemas.company import Message
from schemas.envelope import Event, Origin
from schemas.inference import InferenceCompleted, InferenceFailed, InferenceRequested
from streams.log.outgoing import to_outgoing

SENTENCE = data.held_out(ACME, 1)[0].text
MINDS = (None, *(f"{company.id}/default" for company in COMPANIES))
ROWS = 15


async def tell(stage: Stage) -> None:
    with stage.narrator.live("waiting for the serving worker"):
        await asyncio.to_thread(stage.crew.until_ready, ("serve",))
    with stage.narrator.live("asking all three"):
        results = await _answers(stage, [_question(adapter, SENTENCE) for adapter in MINDS])
    answers = {adapter or "base": text for adapter, text in zip(MINDS, map(_text, results), strict=True)}
    for who, text in answers.items():
        stage.console.print(f"  [bold]{who:16}[/] {text.strip()!r}", highlight=False, soft_wrap=True)
    base, acme, globex = answers["base"], answers["acme/default"], answers["globex/default"]
    stage.expect("<tool_call>" not in base, "the base model chats")
    stage.expect(ACME.tools[0].name in acme, f"acme's adapter calls {ACME.tools[0].name}")
    stage.expect(GLOBEX.tools[0].name in globex, f"globex's adapter calls {GLOBEX.tools[0].name}")
    await _by_openai(stage)
    await _speed(stage)


async def _speed(stage: Stage) -> None:
    """The same questions, asked of one adapter and of all minds in turn."""
    texts = [request.text for request in data.held_out(ACME, ROWS)]
    for what, minds in (("1 adapter", MINDS[1:2]), ("base and 2 adapters", MINDS)):
        questions = [_question(minds[n % len(minds)], text) for n, text in enumerate(texts)]
        began = time.monotonic()
        with stage.narrator.live(f"{ROWS} questions at once, {what}"):
            results = await _answers(stage, questions)
        tokens = sum(e.completion_tokens for e in results if isinstance(e, InferenceCompleted))
        stage.figures[f"tokens a second, {ROWS} questions by topic, {what}"] = (
            f"{tokens / (time.monotonic() - began):.0f}"
        )


async def _answers(stage: Stage, questions: Sequence[InferenceRequested]) -> list[InferenceCompleted | InferenceFailed]:
    """Appended together, they meet in one batch of the inference group. Answers come in the order of the questions."""
    names = stage.settings.topic_names()
    starts = await stage.log.ends(names.wire("inference-result"))
    await stage.log.append([to_outgoing(question, names) for question in questions])

    async def look() -> list[InferenceCompleted | InferenceFailed]:
        found = {event.request: event for event in await _results(stage, starts)}
        return [found[q.id] for q in questions] if all(q.id in found for q in questions) else []

    answers: list[InferenceCompleted | InferenceFailed] = await stage.until(f"{len(questions)} answers", look)
    return answers


def _question(adapter: str | None, text: str) -> InferenceRequested:
    company = adapter.partition("/")[0] if adapter else ACME.id
    turn = Message(role="user", content=text)
    return InferenceRequested(**first(company), adapter=adapter, messages=(turn,), max_tokens=48)


async def _results(stage: Stage, starts: Mapping[int, int]) -> list[InferenceCompleted | InferenceFailed]:
    topic = stage.settings.topic_names().wire("inference-result")
    found: list[Event] = []
    for partition, start in starts.items():
        async for records in stage.log.read(topic, partition, start):
            for r in records:
                event = decode(r.value, Origin(topic, r.partition, r.offset), r.timestamp, r.headers)
                found += [event] if isinstance(event, Event) else []
    return [event for event in found if isinstance(event, InferenceCompleted | InferenceFailed)]


def _text(event: InferenceCompleted | InferenceFailed) -> str:
    if isinstance(event, InferenceFailed):
        raise NotAsTold(f"inference failed: {event.reason} {event.detail}")
    return event.text


async def _by_openai(stage: Stage) -> None:
    async with AsyncOpenAI(base_url=f"{stage.urls['api']}/v1", api_key=stage.keys[GLOBEX.id]) as client:
        models = [model.id async for model in client.models.list()]
        stage.expect(
            "globex/default" in models and "acme/default" not in models,
            "globex's key sees the base model and its own adapter alone",
        )
        answer = await client.chat.completions.create(
            model="globex/default", messages=[{"role": "user", "content": SENTENCE}], max_tokens=48, temperature=0
        )
    calls = answer.choices[0].message.tool_calls or []
    stage.expect(
        [call.function.name for call in calls if call.type == "function"] == [GLOBEX.tools[0].name],
        "the openai client gets the same call as tool_calls",
    )
