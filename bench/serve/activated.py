"""One prompt read once: an activated adapter on a prompt whose KV of the base is there, against our own LoRA path.

The adapters are the same numbers; one kind is active from the trigger on, the other for the whole prompt.
"""

from collections.abc import Callable, Collection
from functools import partial
from itertools import count

import peft
import torch

from bench.harness import Figures, Ratio
from bench.part import Found, Part, beside, together
from bench.serve.ours import Ask, Played, cached, make_engine, play, read
from bench.serve.scene import Scene, trigger
from bench.serve.timed import TIE
from gpu_workers.adapters.weights import LoraWeights
from gpu_workers.serve.engine.engine import Engine

RANK, CRITICS, TRANSCRIPT, NEW = 32, 16, 2_000, 16
LENGTHS = (512, 2_048)


class Transcripts:
    """One engine, whose prompts never come twice, and the same adapters of both kinds."""

    def __init__(self, scene: Scene, adapters: int) -> None:
        self._scene, self.trigger = scene, trigger(scene.plain.tokenizer)
        self.folders = scene.adapters(adapters, RANK, self.trigger)
        plain = scene.adapters(adapters, RANK)
        self.activated, self.lora = ([read(folder) for folder in each] for each in (self.folders, plain))
        self._engine: Engine = make_engine(scene.plain.model)
        self._marks = count()
        self._asks(self.activated, [0], 1, active_from=1)  # says what this engine lacks, before anything is computed

    def prompt(self, length: int, *seed: object) -> list[int]:
        """Ends in the trigger, as every chat prompt does."""
        return [*self._scene.prompts(1, length - len(self.trigger), *seed)[0], *self.trigger]

    def base(self, prompt: list[int]) -> Played:
        return play(self._engine, [Ask(prompt, None, 1)])

    def active(self, prompt: list[int], adapters: int, new: int) -> Played:
        start = len(prompt) - len(self.trigger)
        return play(self._engine, self._asks(self.activated[:adapters], prompt, new, active_from=start))

    def whole(self, prompt: list[int], adapters: int, new: int) -> Played:
        return play(self._engine, self._asks(self.lora[:adapters], prompt, new))

    def _asks(self, weights: list[LoraWeights], prompt: list[int], new: int, **more: int) -> list[Ask]:
        return [Ask(prompt, each, new, {"mark": f"adapter {next(self._marks)}"} | more) for each in weights]


def first_token(scene: Scene, length: int) -> Found:
    """Processor seconds to the first token, when another has asked the base the same before."""
    scripts, reused = Transcripts(scene, 1), list[int]()

    def activated(turn: int) -> Figures:
        prompt = scripts.prompt(length, turn, length)
        scripts.base(prompt)
        played = scripts.active(prompt, 1, 1)
        reused.append(cached(played.rows[0]))
        return {"ttft_cpu_s": played.first()}

    def lora(turn: int) -> Figures:
        return {"ttft_cpu_s": scripts.whole(scripts.prompt(length, turn, length, "lora"), 1, 1).first()}

    _equal(scene, scripts, length)
    ours, peer = f"ours, activated on {length} read tokens", f"ours, LoRA on {length} tokens"
    ratio = {f"alora_ttft_{length}": Ratio("ttft_cpu_s", peer, ours)}
    found = beside(f"serve activated {length}", {ours: activated, peer: lora}, ratio, scene)
    return found._replace(costs={f"tokens of {length} read once": float(min(reused))})


def _equal(scene: Scene, scripts: Transcripts, length: int) -> None:
    """What it says from the base's own pages is what PEFT says."""
    prompt = scripts.prompt(length, "equal")
    scripts.base(prompt)
    said = scripts.active(prompt, 1, NEW).said[0]
    model = peft.PeftModel.from_pretrained(scene.load().model, scripts.folders[0])
    with torch.inference_mode():
        logits = model(torch.tensor([prompt + said])).logits[0, len(prompt) - 1 : -1]
    best, chosen = logits.max(-1).values, logits[range(NEW), said]
    if (gap := float((best - chosen).max())) >= TIE:
        raise SystemExit(f"activated on {length} tokens: a token that is {gap:.2g} of logit below PEFT's")


def critics(scene: Scene) -> Found:
    """Sixteen adapters read one transcript, and each says something about it."""
    scripts = Transcripts(scene, CRITICS)

    def activated(turn: int) -> Figures:
        prompt = scripts.prompt(TRANSCRIPT, turn)
        return {"cpu_s": scripts.base(prompt).seconds + scripts.active(prompt, CRITICS, NEW).seconds}

    def lora(turn: int) -> Figures:
        return {"cpu_s": scripts.whole(scripts.prompt(TRANSCRIPT, turn, "lora"), CRITICS, NEW).seconds}

    ours, peer = f"ours, {CRITICS} activated, transcript read once", f"ours, {CRITICS} LoRAs, each reads it"
    return beside(
        "serve critics", {ours: activated, peer: lora}, {"alora_16": Ratio("cpu_s", peer, ours)}, scene, [peer]
    )


def run(scene: Scene, keys: Collection[str]) -> Found:
    each: dict[str, Callable[[], Found]] = {f"alora_ttft_{n}": partial(first_token, scene, n) for n in LENGTHS}
    each["alora_16"] = partial(critics, scene)
    return together(each[key]() for key in keys)


PARTS = [Part("alora", (*(f"alora_ttft_{length}" for length in LENGTHS), "alora_16"), run)]
