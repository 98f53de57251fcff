"""A tiny base model with a tokenizer, a store of adapters made by PEFT, and PEFT's own answers."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import torch

from gpu_workers.adapters.store import Facts, FolderStore
from gpu_workers.bases import load as base_model
from gpu_workers.bases import tiny
from gpu_workers.bases.chat import Chat
from gpu_workers.bases.device import Device
from gpu_workers.serve.port import AdapterKey, AdapterSpec, Question
from schemas.company import Message, ToolUse
from tests.support.models import ALL, Kept, save_adapter, with_adapter

CPU = Device("cpu", "float32", 1)

HOSTILE: dict[str, dict[str, Any]] = {
    "deep tools": {"tools": "[" * 5_000},
    "tools that are no list of objects": {"tools": "[1, null]"},
    "half a letter": {"tools": '[{"name": "\\ud800"}]'},
    "a role that is none": {"messages": (Message(role="x" * 100_000),)},
    "no message": {"messages": ()},
    "arguments of brackets": {
        "messages": (Message(role="assistant", tool_calls=(ToolUse(name="t", arguments="[" * 5_000),)),)
    },
    "no number": {"temperature": float("nan")},
    "infinite": {"temperature": float("inf")},
    "below zero": {"temperature": -1.0},
    "nearly nothing": {"temperature": 1e-40},
    "no share": {"top_p": 0.0},
    "a share that is no number": {"top_p": float("nan"), "temperature": 1.0},
    "a seed of 64 bits": {"temperature": 1.0, "seed": -(2**63)},
    "a seed of more": {"temperature": 1.0, "seed": 2**70},
    "no tokens": {"max_tokens": 0},
    "fewer than none": {"max_tokens": -(2**31)},
    "all the tokens there are": {"max_tokens": 2**31 - 1},
    "a priority of 64 bits": {"priority": -(2**63)},
    "no time": {"within": float("nan")},
    "a path": {"adapter": "acme/../globex/ops"},
    "nothing": {"adapter": ""},
    "a version below": {"adapter": "acme/ops", "version": -1},
    "a prompt of a megabyte": {"messages": tuple(Message(role="user", content="x" * 60_000) for _ in range(15))},
}
FINE = {"nearly nothing", "a seed of 64 bits", "a seed of more", "all the tokens there are", "no message"}
"""Those of the hostile questions that have an answer: the rest has a reason."""


@dataclass
class Workbench:
    """Everything that a served answer can be held against."""

    root: Path
    base: Path
    chat: Chat
    model: Any
    store: FolderStore
    base_sha256: str
    adapted: dict[Kept, Any] = field(default_factory=dict)

    def adapter(self, name: str, version: int = 1, seed: int = 0, **changes: Any) -> AdapterSpec:
        """Trained by dice, published to the store."""
        company = name.partition("/")[0]
        folder = self.root / "made" / f"{name}-{version}-{seed}"
        save_adapter(self.model, folder, seed, **({"r": 8, "lora_alpha": 16, "target_modules": ALL} | changes))
        (folder / "README.md").unlink()
        facts = Facts(company=company, base_model="tiny", base_sha256=self.base_sha256, tools_in_prompt=seed % 2 == 1)
        sha256 = self.store.put(folder, facts)
        return AdapterSpec(
            key=AdapterKey(name, version),
            folder=self.store.place(sha256),
            sha256=sha256,
            base_sha256=facts.base_sha256,
            tools_in_prompt=facts.tools_in_prompt,
        )

    def peft(self, spec: AdapterSpec | None, question: Question) -> str:
        """The greedy answer of a PEFT model that holds this one adapter."""
        model: Any = self.model if spec is None else with_adapter(self.model, spec.folder, self.adapted)
        tools = question.tools if spec is None or spec.tools_in_prompt else None
        ids, said = self.chat.prompt(question.messages, tools), list[int]()
        with torch.inference_mode():
            while len(said) < question.max_tokens and self.chat.ends.isdisjoint(said):
                said.append(int(model(torch.tensor([ids + said])).logits[0, -1].argmax()))
        return self.chat.decode(said)


def make_workbench(root: Path) -> Workbench:
    texts = ["Look up customer C-4711, please.", "Refund 12 euros to Ms Grey.", "What is the capital of France? Paris."]
    base = tiny.make(root / "base", texts)
    model, tokenizer, identity = base_model.load(str(base), root / "cache", CPU)
    chat = Chat.of(tokenizer, model.generation_config.eos_token_id)
    return Workbench(root, base, chat, model, FolderStore(root / "store"), identity.sha256)


def ask(text: str, adapter: str | None = None, version: int | None = None, **changes: Any) -> Question:
    messages = (Message(role="user", content=text),)
    named: dict[str, Any] = {"messages": messages, "adapter": adapter, "version": version}
    return Question(**(named | {"id": f"q-{adapter}-{text}", "max_tokens": 8} | changes))


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Workbench:
    """One for each module: tests alter what it published."""
    return make_workbench(tmp_path_factory.mktemp("bench"))
