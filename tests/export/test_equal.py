"""What llama.cpp says of exported files, in float32, is what our own engine says: token by token."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

from bench.serve.kinds import KINDS
from bench.serve.ours import Ask, make_engine, play
from gpu_workers.bases import load as base_model
from gpu_workers.bases import tiny
from gpu_workers.bases.chat import Chat
from gpu_workers.bases.device import Device
from gpu_workers.export.adapter import export_gguf
from gpu_workers.export.base_model import export_base
from rillfold.llama_cpp import LlamaCppClient
from schemas.company import Message, ToolUse
from tests.export.conftest import TEXTS, Exported
from tests.support.tongues import make as speaks

QUESTIONS = ("Refund 3 euros to Ms Paris.", "Who?")
NEW, TIE = 10, 1e-4
TOOLS = [
    {
        "name": "refund",
        "description": 'Pays "back" <b>ü</b>.',
        "parameters": {"type": "object", "properties": {"b": {}}},
    },
    {"name": "bare", "parameters": {"type": "object"}},
]


def test_base_and_every_kind_of_adapter_say_the_same_tokens(each_export: Exported) -> None:
    it = each_export
    said: dict[str | None, list[list[int]]] = {}
    with LlamaCppClient(it.gguf, it.ggufs, threads=1, context=512, float32=True) as client:
        for kind in (None, *KINDS):
            for question in QUESTIONS:
                prompt = it.chat.prompt((Message(role="user", content=question),))
                theirs = client.complete(prompt, adapter=kind, max_tokens=NEW)
                must_say_the_same(it, kind, prompt, theirs.tokens)
                said.setdefault(kind, []).append(theirs.tokens)
    changed = [kind for kind in KINDS if said[kind] != said[None]]
    assert len(changed) >= len(KINDS) - 1, "adapters that say what the base says prove nothing"


def must_say_the_same(it: Exported, kind: str | None, prompt: list[int], theirs: list[int]) -> None:
    """Up to where two tokens are equally likely but for what rounding does."""
    ours = it.said(kind, prompt, NEW)
    if theirs != ours:
        assert len(theirs) == len(ours), kind
        at = next(i for i, pair in enumerate(zip(ours, theirs, strict=True)) if pair[0] != pair[1])
        assert it.gap(kind, prompt + ours[:at], (ours[at], theirs[at])) < TIE, (kind, at)


@pytest.mark.parametrize("name", ["ours", "qwen3", "llama3"])
def test_prompts_of_chats_with_tools_are_those_of_serving(name: str, tmp_path: Path) -> None:
    base = speaks(tmp_path, name)
    model, tokenizer, _ = base_model.load(str(base), tmp_path, Device("cpu", "float32", 1))
    chat = Chat.of(tokenizer, model.generation_config.eos_token_id)
    export_base(str(base), tmp_path, tmp_path / "base.gguf")
    talk: list[dict[str, Any]] = [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "Refund 12 euros, ü <b> & 1234."},
        {"role": "assistant", "content": "", "tool_calls": [_call("refund", {"b": 1})]},
        {"role": "tool", "content": "7"},
        {"role": "assistant", "content": "Done."},
        {"role": "user", "content": "And?"},
    ]
    told = (
        TOOLS if name == "ours" else TOOLS[:1]
    )  # llama.cpp tells a model's own template "" of a tool that says nothing
    with LlamaCppClient(tmp_path / "base.gguf", threads=1, context=2048) as client:
        for said in (talk, talk[1:2], talk[:2]):
            for tools in (told, None):
                ours = chat.prompt([_message(each) for each in said], json.dumps(tools) if tools else None)
                assert client.prompt(said, tools) == ours, (tools, chat.decode(client.prompt(said, tools)))


@pytest.mark.parametrize(
    ("family", "rope"),
    [
        ("llama", {"rope_type": "linear", "factor": 4.0}),
        (
            "llama",
            {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
             "original_max_position_embeddings": 64},
        ),
        ("qwen3", {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 256}),
        ("llama", {"attention_bias": True, "mlp_bias": True, "tie_word_embeddings": False}),
    ],
    ids=["linear", "llama3", "yarn", "biases"],
)  # fmt: skip
def test_positions_and_biases_come_along(family: str, rope: dict[str, Any], tmp_path: Path) -> None:
    folder = tiny.make(tmp_path / "plain", ["Refund 12 euros."], kind=tiny.TinyKind(family=family))
    config = AutoConfig.from_pretrained(folder)
    for name, value in rope.items():
        setattr(config, name, value) if "rope_type" not in rope else config.rope_parameters.update({name: value})
    config.initializer_range = 0.3
    model: Any = AutoModelForCausalLM.from_config(config)
    for name, weight in model.named_parameters():
        if name.endswith("bias"):
            weight.data.normal_(0, 0.3)
    base = tmp_path / "base"
    model.save_pretrained(base)
    AutoTokenizer.from_pretrained(folder).save_pretrained(base)
    export_base(str(base), tmp_path, tmp_path / "base.gguf")
    model, tokenizer, _ = base_model.load(str(base), tmp_path, Device("cpu", "float32", 1))
    prompt = Chat.of(tokenizer).encode("Refund 12 euros. " * 20)
    ours = play(make_engine(model), [Ask(prompt, None, NEW)]).said[0]
    with LlamaCppClient(tmp_path / "base.gguf", threads=1, context=512, float32=True) as client:
        assert client.complete(prompt, max_tokens=NEW).tokens == ours


def test_the_same_adapter_and_base_give_the_same_bytes(one_export: Exported, tmp_path: Path) -> None:
    again = tiny.make(tmp_path / "base", TEXTS, kind=tiny.TinyKind(family="llama"))
    export_base(str(again), tmp_path, tmp_path / "base.gguf")
    assert (tmp_path / "base.gguf").read_bytes() == one_export.gguf.read_bytes()
    for kind, folder in one_export.adapters.items():
        file = export_gguf(folder, one_export.base, tmp_path / "adapter.gguf")
        assert file.read_bytes() == one_export.ggufs[kind].read_bytes(), kind


def _call(name: str, arguments: dict[str, Any]) -> dict[str, Any]:
    return {"type": "function", "function": {"name": name, "arguments": json.dumps(arguments)}}


def _message(said: dict[str, Any]) -> Message:
    calls = [
        ToolUse(name=it["function"]["name"], arguments=it["function"]["arguments"]) for it in said.get("tool_calls", ())
    ]
    return Message(role=said["role"], content=said["content"], tool_calls=tuple(calls))
