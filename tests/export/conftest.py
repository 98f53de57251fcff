"""Tiny bases of both architectures, adapters of every kind on them, and all of that as files of llama.cpp."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import peft
import pytest
import torch

from bench.serve.kinds import KINDS, make
from bench.serve.ours import Ask, make_engine, play, read
from gpu_workers.bases import load as base_model
from gpu_workers.bases import tiny
from gpu_workers.bases.chat import Chat
from gpu_workers.bases.device import Device
from gpu_workers.bases.files import BaseIdentity
from gpu_workers.export.adapter import ReadyBase, export_gguf
from gpu_workers.export.base_model import export_base
from rillfold.llama_cpp import LlamaCppClient
from tests.cli.conftest import kafka
from tests.support.threads import one_thread

__all__ = ["kafka", "one_thread"]

TEXTS = ["Look up customer C-4711, please.", "Refund 12 euros to Ms Grey.", "What is the capital of France? Paris."]


class Exported(NamedTuple):
    """A base with adapters, here and as files of llama.cpp."""

    family: str
    root: Path
    folder: Path
    model: Any
    chat: Chat
    identity: BaseIdentity
    adapters: dict[str, Path]
    gguf: Path
    ggufs: dict[str, Path]

    @property
    def base(self) -> ReadyBase:
        return ReadyBase(self.folder, self.identity)

    def said(self, kind: str | None, prompt: list[int], new: int) -> list[int]:
        """By our own engine."""
        weights = None if kind is None else read(self.adapters[kind])
        more: dict[str, Any] = {}
        if weights is not None and (trigger := list(weights.activation or ())):
            starts = [i for i in range(len(prompt)) if prompt[i : i + len(trigger)] == trigger]
            more = {"mark": kind, "active_from": starts[-1]}
        return play(make_engine(self.model), [Ask(prompt, weights, new, more)]).said[0]

    @torch.inference_mode()
    def gap(self, kind: str | None, tokens: list[int], two: tuple[int, int]) -> float:
        """Of logit, between two that might come next, by PEFT."""
        model = copy.deepcopy(self.model)
        if kind is not None:
            model = peft.PeftModel.from_pretrained(model, self.adapters[kind]).eval()
        logits = model(torch.tensor([tokens])).logits[0, -1]
        return abs(float(logits[two[0]] - logits[two[1]]))


def exported(family: str, root: Path) -> Exported:
    folder = tiny.make(root / "base", TEXTS, kind=tiny.TinyKind(family=family))
    model, tokenizer, identity = base_model.load(str(folder), root / "cache", Device("cpu", "float32", 1))
    chat = Chat.of(tokenizer, model.generation_config.eos_token_id)
    trigger = chat.encode("assistant\n")
    trigger = [chat.specials["<|im_start|>"], *trigger]
    adapters = {kind: make(model, kind, seed, root / f"{seed}", trigger) for seed, kind in enumerate(KINDS)}
    gguf, base = root / "base.gguf", ReadyBase(folder, identity)
    export_base(str(folder), root / "cache", gguf)
    ggufs = {kind: export_gguf(place, base, root / f"{place.name}.gguf") for kind, place in adapters.items()}
    return Exported(family, root, folder, model, chat, identity, adapters, gguf, ggufs)


@pytest.fixture(scope="session")
def exports(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Exported]:
    """Of each family, made once."""
    return cache(lambda family: exported(family, tmp_path_factory.mktemp(family)))


@pytest.fixture(params=["llama", "qwen3"])
def each_export(request: pytest.FixtureRequest, exports: Callable[[str], Exported]) -> Exported:
    return exports(request.param)


@pytest.fixture(scope="session")
def one_export(exports: Callable[[str], Exported]) -> Exported:
    return exports("llama")


@pytest.fixture(scope="session")
def running(one_export: Exported) -> Iterator[LlamaCppClient]:
    with LlamaCppClient(one_export.gguf, one_export.ggufs, threads=1, context=1024) as client:
        yield client
