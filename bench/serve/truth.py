"""What each adapter says alone, by PEFT, over a tiny base that knows nothing: real code and shapes, at once."""

import copy
import warnings
from pathlib import Path
from typing import Any, NamedTuple

import peft
import torch

from bench.serve.kinds import broken, make
from bench.serve.scene import ONE_THREAD, trigger
from gpu_workers.bases import load as base_model
from gpu_workers.bases import tiny
from gpu_workers.bases.chat import Chat
from gpu_workers.serve.port import AdapterKey, AdapterSpec
from schemas.company import Message

TEXTS = ["Look up customer C-4711, please.", "Refund 12 euros to Ms Grey.", "What is the capital of France? Paris."]
LONG = "Refund 12 euros. " * 12
ASKED = (
    "Who?",
    "Refund 3 euros to Ms Paris.",
    f"{LONG}Why?",
    f"{LONG}Look up C-12.",
    f"{LONG * 2}Who?",
    "capital " * 9,
)
"""Some begin alike, over pages of the cache."""
NEW = 8


class Truth(NamedTuple):
    text: str
    margin: float
    """Of logit, between the two likeliest tokens, where it was smallest."""


class Tiny:
    """The base, adapters made on it, and answers of PEFT models that hold one adapter each."""

    def __init__(self, root: Path) -> None:
        self.root, self.cache = root, root / "cache"
        self.base = tiny.make(root / "base", TEXTS)
        self.model, tokenizer, self.identity = base_model.load(str(self.base), self.cache, ONE_THREAD)
        self.chat, self.trigger = Chat.of(tokenizer), trigger(tokenizer)
        self._models: dict[AdapterKey | None, Any] = {None: self.model}
        self._truths: dict[tuple[AdapterKey | None, str], Truth] = {}

    def adapter(self, key: AdapterKey, kind: str, seed: int, whole: bool = True) -> AdapterSpec:
        folder = make(self.model, kind, seed, self.root / "made" / key.name / str(key.version), self.trigger)
        if not whole:
            broken(folder)
        return AdapterSpec(key=key, folder=folder, base_sha256=self.identity.sha256)

    def of(self, spec: AdapterSpec | None, text: str) -> Truth:
        key = spec.key if spec else None
        if (key, text) not in self._truths:
            self._truths[key, text] = self._greedy(self._with(spec), text)
        return self._truths[key, text]

    def _with(self, spec: AdapterSpec | None) -> Any:
        key = spec.key if spec else None
        if key not in self._models:
            assert spec is not None and spec.folder is not None
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                self._models[key] = peft.PeftModel.from_pretrained(copy.deepcopy(self.model), spec.folder).eval()
        return self._models[key]

    @torch.inference_mode()
    def _greedy(self, model: Any, text: str) -> Truth:
        ids, said, margin = self.chat.prompt((Message(role="user", content=text),)), list[int](), float("inf")
        while len(said) < NEW and self.chat.ends.isdisjoint(said):
            best = model(torch.tensor([ids + said])).logits[0, -1].topk(2)
            margin = min(margin, float(best.values[0] - best.values[1]))
            said.append(int(best.indices[0]))
        return Truth(self.chat.decode(said), margin)
