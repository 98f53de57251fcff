"""The engine on a real language model: tokens as transformers and PEFT say them, adapters and base in one batch."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import peft
import pytest
import torch

from gpu_workers.adapters.weights import read_adapter
from gpu_workers.bases import load as base_model
from gpu_workers.bases.chat import Chat
from gpu_workers.serve.engine.decoder import Decoder
from gpu_workers.serve.engine.engine import Engine, LoraRow
from gpu_workers.serve.schedule.rows import Limits
from rillfold.settings import from_env
from schemas.company import Message
from tests.serve.test_engine import run
from tests.support.models import ALL
from tests.support.workbench import CPU

pytestmark = pytest.mark.model
NEW = 8


def test_base_and_two_adapters_in_one_batch_equal_peft(tmp_path: Path) -> None:
    settings = from_env()
    model, tokenizer, _ = base_model.load(settings.base_model, settings.cache_dir, CPU)
    decoder, chat = Decoder(model), Chat.of(tokenizer)
    wrapped: Any = peft.get_peft_model(model, peft.LoraConfig(r=16, lora_alpha=32, target_modules=ALL), "one")
    wrapped.add_adapter("two", peft.LoraConfig(r=8, lora_alpha=8, use_rslora=True, target_modules=["q_proj", "v_proj"]))
    torch.manual_seed(0)
    with torch.no_grad():
        for name, weight in wrapped.named_parameters():
            if "lora_B" in name:
                weight.normal_(0, 0.03)
    wrapped.eval().save_pretrained(tmp_path)
    weights = {name: read_adapter(tmp_path / name) for name in ("one", "two")}
    texts = ["What is the capital of France?", "Hi!", "Write one sentence about the sea, please.", "Name a fruit."]
    prompts = [chat.prompt([Message(role="user", content=text)]) for text in texts]
    names = [None, "one", "two", None]
    rows = [
        LoraRow(i, prompt, weights[name] if name else None, NEW)
        for i, (prompt, name) in enumerate(zip(prompts, names, strict=True))
    ]
    said = run(Engine(decoder, frozenset({chat.end}), Limits()), rows)
    for i, (prompt, name) in enumerate(zip(prompts, names, strict=True)):
        out = wrapped.generate(
            input_ids=torch.tensor([prompt]), attention_mask=torch.ones(1, len(prompt), dtype=torch.long),
            max_new_tokens=NEW, eos_token_id=chat.end, pad_token_id=chat.end, adapter_names=[name or "__base__"],
        )  # fmt: skip
        assert said[i] == out[0, len(prompt) :].tolist(), name
    assert "Paris" in chat.decode(said[0])
