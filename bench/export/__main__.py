"""The demo's base and an adapter of each kind, exported, and asked by llama.cpp in float32: every token must be ours.

Adapters are trained on the demo's data, as its are, and asked what they never saw; patterns, which no training here
makes, are PEFT's, with random matrices that change the answers. Where two tokens are equally likely but for rounding,
either is right, and counted. And what an export costs, and that another gives the same bytes.
"""

import copy
import sys
import time
import warnings
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import peft
import torch

from bench.harness import options, report
from bench.serve.kinds import make
from bench.serve.ours import Ask, make_engine, play, read
from bench.serve.scene import ONE_THREAD
from bench.train.methods import OF, RECIPE
from bench.train.scene import Scene, child, scene
from gpu_workers.bases import load as base_model
from gpu_workers.bases.chat import Chat
from gpu_workers.bases.files import file_sha256
from gpu_workers.bases.load import prepare
from gpu_workers.export.adapter import ReadyBase, export_gguf
from gpu_workers.export.base_model import export_base
from gpu_workers.train.lines import to_bytes
from processors.training.settings import TrainSettings
from rillfold.demo import data
from rillfold.llama_cpp import LlamaCppClient
from rillfold.settings import from_env
from schemas.company import Message

PROMPTS, NEW, TIE = 50, 40, 1e-3
STRENGTH = 0.05
"""Of random matrices: what an adapter says is other than what the base says, and no noise."""
TRAINED = {"LoRA": "lora", "rsLoRA": "rslora", "folded AdaLoRA": "adalora", "activated LoRA": "activated"}
MADE = {"rank and alpha patterns": "LoRA with patterns"}


class Export:
    """The base here, and its adapters; and where their files go."""

    def __init__(self, scene: Scene) -> None:
        settings = from_env()
        torch.set_num_threads(1)
        self.name, self.cache = settings.bases()[settings.base_name()], settings.cache_dir
        self.model, tokenizer, self.identity = base_model.load(self.name, self.cache, ONE_THREAD)
        self.chat = Chat.of(tokenizer, self.model.generation_config.eos_token_id)
        self.trigger = [self.chat.specials["<|im_start|>"], *self.chat.encode("assistant\n")]
        self.engine = make_engine(self.model)
        self.adapters = {name: trained(scene, name, recipe) for name, recipe in TRAINED.items()}
        for name, kind in MADE.items():
            self.adapters[name] = make(self.model, kind, 0, scene.root / "made", self.trigger, STRENGTH)

    def files(self, where: Path) -> dict[str, Path]:
        """The base under the name of nobody."""
        base = ReadyBase(prepare(self.name, self.cache), self.identity)
        export_base(self.name, self.cache, where / "base.gguf")
        named = {name: where / f"{number}.gguf" for number, name in enumerate(self.adapters)}
        for name, file in named.items():
            export_gguf(self.adapters[name], base, file)
        return {"": where / "base.gguf"} | named

    def said(self, name: str, prompts: Sequence[list[int]], new: int) -> list[list[int]]:
        """By our engine, all at once."""
        weights = read(self.adapters[name]) if name else None
        activated = weights is not None and weights.activation is not None
        asks = [
            Ask(each, weights, new, {"mark": name, "active_from": len(each) - len(self.trigger)} if activated else {})
            for each in prompts
        ]
        return play(self.engine, asks).said

    def gap(self, name: str, tokens: list[int], two: tuple[int, int]) -> float:
        model: Any = copy.deepcopy(self.model)
        if name:
            model = peft.PeftModel.from_pretrained(model, self.adapters[name]).eval()
        with torch.inference_mode():
            logits = model(torch.tensor([tokens])).logits[0, -1]
        return abs(float(logits[two[0]] - logits[two[1]]))


def trained(scene: Scene, name: str, recipe: str) -> Path:
    """By a child, as each run of training is."""
    method, more = OF[recipe]
    spec = scene.spec(recipe, method, TrainSettings(**(RECIPE | more | {"evaluation_rows": 0})), scene.rows)
    child("ran", to_bytes(spec).decode(), scene.threads)
    print(f"export: {name} is trained", file=sys.stderr)
    return spec.out


def prompts(it: Export, count: int) -> Iterator[list[int]]:
    for request in data.held_out(data.ACME, count):
        yield it.chat.prompt((Message(role="user", content=request.text),))


def equal(it: Export, files: Mapping[str, Path], count: int, new: int) -> dict[str, dict[str, float]]:
    """Of each kind: prompts whose tokens are ours, that part at a tie, at none, and that say what the base says."""
    found, asked, of_base = dict[str, dict[str, float]](), list(prompts(it, count)), list[list[int]]()
    adapters = {name: file for name, file in files.items() if name}
    with LlamaCppClient(files[""], adapters, threads=1, context=512, float32=True) as client:
        for name in files:
            ours = it.said(name, asked, new)
            theirs = [client.complete(each, adapter=name or None, max_tokens=new).tokens for each in asked]
            of_base = of_base or theirs
            figures = dict.fromkeys(("equal", "ties", "other"), 0.0)
            for prompt, our, their in zip(asked, ours, theirs, strict=True):
                figures[_verdict(it, name, prompt, our, their)] += 1
            figures["as the base"] = sum(one == other for one, other in zip(theirs, of_base, strict=True))
            print(f"export: {name or 'base'}: {figures}", file=sys.stderr)
            found[name or "base"] = figures
    return found


def _verdict(it: Export, name: str, prompt: list[int], ours: list[int], theirs: list[int]) -> str:
    """llama.cpp stops at a token that ends an answer; our engine is told of none here, and goes on."""
    at = next((i for i, (our, their) in enumerate(zip(ours, theirs, strict=False)) if our != their), None)
    if at is None:
        ended = len(theirs) == len(ours) or it.chat.ends & {theirs[-1], ours[len(theirs)]}
        return "equal" if ended else "other"
    return "ties" if it.gap(name, prompt + ours[:at], (ours[at], theirs[at])) < TIE else "other"


def main() -> None:
    given = options(__doc__, runs=1, prompts=PROMPTS, new=NEW, threads=1).parse_args()
    warnings.simplefilter("ignore")
    with scene(1, given.threads, 0) as stage:
        it = Export(stage)
        began = time.process_time()
        files = it.files(stage.root / "first")
        seconds = time.process_time() - began
        again = it.files(stage.root / "again")
        same = sum(file_sha256(files[name]) == file_sha256(again[name]) for name in files)
        results = equal(it, files, given.prompts, given.new)
    costs = {f"{name}: prompts with our tokens, of {given.prompts}": each["equal"] for name, each in results.items()}
    costs |= {"prompts that part at a tie": sum(each["ties"] for each in results.values())}
    costs |= {f"files with the same bytes again, of {len(files)}": same, "export of all, processor seconds": seconds}
    report("export", given.runs, results, {}, costs)
    wrong = sum(each["other"] for each in results.values()) + len(files) - same
    sys.exit(1 if wrong else 0)


if __name__ == "__main__":
    main()
