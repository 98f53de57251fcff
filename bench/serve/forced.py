"""Forced calls of the demo's tools against our own free decoding: the same prompts, as many tokens, at 1, 8 and 32.

And 2,000 calls that are drawn by dice from a model that knows nothing: not one may be malformed.
"""

import asyncio
import json
import time
from collections.abc import Callable, Collection
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from random import Random

import msgspec
from jsonschema import Draft202012Validator

from bench.harness import Figures, Ratio
from bench.serve.ours import Missing, tiny_engine, whole
from bench.serve.part import Found, Part, beside
from bench.serve.scene import Scene
from gpu_workers.bases import tiny
from gpu_workers.serve.port import Answer, InferenceEngine, MustCall, Outcome, Question
from rillfold.demo.data import ACME, held_out
from schemas.company import Message

SIZES, ANSWER, LONG = (1, 8, 32), 96, 400
SHARE = 5
"""One in so many of the bench's random requests is drawn from dice and forced."""
TOOLS = [{"name": tool.name, "description": tool.description, "parameters": tool.parameters()} for tool in ACME.tools]


def asked(text: str, new: int, forced: bool) -> Question:
    return Question(
        id=text,
        company=ACME.id,
        messages=(Message(role="user", content=text),),
        tools=json.dumps(TOOLS),
        max_tokens=new,
        must=MustCall() if forced else None,
    )


async def answers(engine: InferenceEngine, questions: list[Question]) -> list[Answer]:
    outcomes: list[Outcome] = await asyncio.gather(*(engine.answer(question) for question in questions))
    for outcome in outcomes:
        if not isinstance(outcome, Answer):
            raise SystemExit(f"{outcome.reason}: {outcome.detail}")
    return [outcome for outcome in outcomes if isinstance(outcome, Answer)]


class Calls:
    """Held-out requests of the demo, forced and then free for as many tokens."""

    def __init__(self, runner: asyncio.Runner, engine: InferenceEngine) -> None:
        self._runner, self._engine = runner, engine
        self._texts = [request.text for request in held_out(ACME, 2 * SIZES[-1])]

    def rate(self, size: int, forced: bool, turn: int) -> Figures:
        texts = Random(turn).sample(self._texts, size)
        lengths = [answer.completion_tokens for answer in self._forced(texts)]
        questions = [asked(text, new, forced) for text, new in zip(texts, lengths, strict=True)]
        began = time.process_time()
        said = self._runner.run(answers(self._engine, questions))
        return {"tokens/cpu-s": sum(each.completion_tokens for each in said) / (time.process_time() - began)}

    def _forced(self, texts: list[str]) -> list[Answer]:
        """How long each call is. It also reads the prompts: both kinds find the same KV there."""
        return self._runner.run(answers(self._engine, [asked(text, ANSWER, forced=True) for text in texts]))


def forced_and_free(scene: Scene, keys: Collection[str]) -> Found:
    engine = whole(scene)
    sizes = [size for size in SIZES if f"forced_{size}" in keys]
    names = {size: (f"ours, forced calls, {size} at once", f"ours, free, {size} at once") for size in sizes}
    with asyncio.Runner() as runner:
        runner.run(engine.__aenter__())
        try:
            calls = Calls(runner, engine)
            contestants: dict[str, Callable[[int], Figures]] = {}
            for size, (forced, free) in names.items():
                contestants[forced] = partial(calls.rate, size, True)
                contestants[free] = partial(calls.rate, size, False)
            ratios = {f"forced_{size}": Ratio("tokens/cpu-s", *pair) for size, pair in names.items()}
            return beside("forced", contestants, ratios, scene)
        finally:
            runner.run(engine.__aexit__(None, None, None))


async def malformed(scene: Scene, base: Path, count: int) -> Found:
    """Of calls drawn at random; one that the limit cuts is counted apart."""
    async with tiny_engine(base, scene.cache, 1) as engine:
        questions = [
            msgspec.structs.replace(asked(f"{i}", LONG, forced=True), temperature=1.0, seed=i) for i in range(count)
        ]
        said = [
            each for start in range(0, count, 500) for each in await answers(engine, questions[start : start + 500])
        ]
    cut = [each for each in said if each.finish_reason == "length"]
    wrong = [each for each in said if each not in cut and not well_formed(each)]
    return Found({}, {}, {"malformed": len(wrong), "forced calls drawn": count, "cut by their length": len(cut)})


def well_formed(answer: Answer) -> bool:
    if len(answer.calls) != 1:
        return False
    schemas = {tool.name: tool.parameters() for tool in ACME.tools}
    call = answer.calls[0]
    return call.name in schemas and Draft202012Validator(schemas[call.name]).is_valid(json.loads(call.arguments))


def run(scene: Scene, keys: Collection[str]) -> Found:
    if find_spec("gpu_workers.serve.forms") is None:
        raise Missing("this engine holds no answer to a form")
    found = Found({}, {}, {})
    if speeds := [key for key in keys if key != "malformed"]:
        found = forced_and_free(scene, speeds)
    if "malformed" in keys:
        base = tiny.make(scene.root / "tiny-forced", [json.dumps(TOOLS)])
        drawn = asyncio.run(malformed(scene, base, scene.requests // SHARE))
        found = found._replace(costs={**found.costs, **drawn.costs})
    return found


PARTS = [Part("forced", (*(f"forced_{size}" for size in SIZES), "malformed"), run)]
