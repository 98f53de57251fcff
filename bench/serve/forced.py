"""Forced calls of the demo's tools against our own free decoding: the same prompts, as many tokens, at 1, 8 and 32.

The tools' part of the prompt is read once before; the requests are new to both. And 2,000 calls that are drawn by dice
from a model that knows nothing: not one may be malformed.
"""

import asyncio
import json
from collections.abc import Callable, Collection, Sequence
from functools import partial
from itertools import islice
from pathlib import Path

import numpy as np
from jsonschema import Draft202012Validator

from bench.harness import Figures, Ratio
from bench.part import Found, Part, beside, together
from bench.serve.ours import Ask, Played, make_engine, play, tiny_engine
from bench.serve.scene import Scene
from gpu_workers.bases import tiny
from gpu_workers.bases.chat import Chat, Sample
from gpu_workers.serve.forms.form import Form, Forms, Words
from gpu_workers.serve.port import Answer, MustCall, Outcome, Question
from rillfold.demo.data import ACME, conversation, held_out
from schemas.company import Message

SIZES, REQUESTS = (1, 8, 32), 600
DRAWN, AT_ONCE, SHARE = 400, 200, 5
"""Tokens of a drawn call, how many are asked at once; one in so many of the bench's random requests is one of them."""
SCHEMAS = {tool.name: tool.parameters() for tool in ACME.tools}
TOOLS = json.dumps(
    [{"name": tool.name, "description": tool.description, "parameters": tool.parameters()} for tool in ACME.tools]
)


class Led:
    """A form at work, in which the model chooses what the company's adapter has learned: the one right call.

    The base knows none and would fill a string until its limit. All that a form costs is paid: only the choice is made.
    """

    def __init__(self, form: Form, right: Sequence[int]) -> None:
        self._form, self._right, self._taken = form, right, 0
        self.begins = form.begins

    def allowed(self) -> Words:
        word, bit = divmod(self._right[self._taken], 32)
        chosen = np.zeros_like(words := self._form.allowed())
        chosen[word] = words[word] & np.uint32(1 << bit).view(np.int32)
        if not chosen[word]:
            raise SystemExit(f"the form forbids token {self._taken} of a right call")
        return chosen

    def take(self, token: int) -> None:
        self._form.take(token)
        self._taken += 1

    def forced(self) -> list[int]:
        return self._form.forced()


class Calls:
    """Held-out requests of the demo, in two engines over one base: forced, and free for exactly as many tokens."""

    def __init__(self, scene: Scene) -> None:
        self._chat = Chat.of(scene.plain.tokenizer)
        self._forms = Forms.of(self._chat)
        self._forced = make_engine(scene.plain.model, self._chat.ends)
        self._free = make_engine(scene.plain.model)
        conversations = (conversation(ACME, request)[:2] for request in held_out(ACME, REQUESTS))
        self._samples = (self._chat.sample(each, TOOLS) for each in conversations)
        self._asked: dict[tuple[int, int], list[Sample]] = {}

    def forced(self, size: int, turn: int) -> Figures:
        samples = self._of(size, turn)
        forms = [Led(self._forms.for_(MustCall(), TOOLS), sample.answer) for sample in samples]
        asks = [
            Ask(sample.prompt, None, len(sample.answer), {"form": form})
            for sample, form in zip(samples, forms, strict=True)
        ]
        played = play(self._forced, asks)
        if played.said != [sample.answer for sample in samples]:
            raise SystemExit("a forced call is not the right one")
        return _rate(played)

    def free(self, size: int, turn: int) -> Figures:
        return _rate(play(self._free, [Ask(each.prompt, None, len(each.answer)) for each in self._of(size, turn)]))

    def _of(self, size: int, turn: int) -> list[Sample]:
        """New requests, the same for both."""
        if (size, turn) not in self._asked:
            self._asked[size, turn] = list(islice(self._samples, size))
        return self._asked[size, turn]


def _rate(played: Played) -> Figures:
    return {"tokens/cpu-s": sum(map(len, played.said)) / played.seconds}


def forced_and_free(scene: Scene, keys: Collection[str]) -> Found:
    calls, contestants, ratios = Calls(scene), dict[str, Callable[[int], Figures]](), dict[str, Ratio]()
    for size in [size for size in SIZES if f"forced_{size}" in keys]:
        forced, free = f"ours, forced calls, {size} at once", f"ours, free, {size} at once"
        contestants |= {forced: partial(calls.forced, size), free: partial(calls.free, size)}
        ratios[f"forced_{size}"] = Ratio("tokens/cpu-s", forced, free)
    for run in contestants.values():
        run(-1)  # reads the tools' part of the prompt
    return beside("serve forced", contestants, ratios, scene)


async def malformed(base: Path, cache: Path, count: int) -> Found:
    """Of calls drawn at random; one that its limit cuts is counted apart."""
    said: list[Outcome] = []
    async with tiny_engine(base, cache, 1) as engine:
        for first in range(0, count, AT_ONCE):
            questions = [_drawn(seed) for seed in range(first, min(first + AT_ONCE, count))]
            said += await asyncio.gather(*map(engine.answer, questions))
    cut = [each for each in said if isinstance(each, Answer) and each.finish_reason == "length"]
    wrong = [each for each in said if each not in cut and not well_formed(each)]
    counted = {"malformed": len(wrong), "malformed: calls drawn": count, "malformed: cut by their length": len(cut)}
    return Found({}, {}, counted)


def _drawn(seed: int) -> Question:
    message = Message(role="user", content=f"{seed}")
    return Question(
        id=f"{seed}", messages=(message,), tools=TOOLS, must=MustCall(), max_tokens=DRAWN, temperature=1.0, seed=seed
    )


def well_formed(outcome: Outcome) -> bool:
    if not isinstance(outcome, Answer) or len(outcome.calls) != 1 or outcome.calls[0].name not in SCHEMAS:
        return False
    (call,) = outcome.calls
    return Draft202012Validator(SCHEMAS[call.name]).is_valid(json.loads(call.arguments))


def run(scene: Scene, keys: Collection[str]) -> Found:
    found = []
    if speeds := [key for key in keys if key != "malformed"]:
        found.append(forced_and_free(scene, speeds))
    if "malformed" in keys:
        base = tiny.make(scene.root / "tiny-forced", [TOOLS])
        found.append(asyncio.run(malformed(base, scene.cache, scene.requests // SHARE)))
    return together(found)


PARTS = [Part("forced", (*(f"forced_{size}" for size in SIZES), "malformed"), run)]
