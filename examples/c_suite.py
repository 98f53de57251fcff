"""A company's officers on one model: each has an adapter of its own, and all of them answer in one batch.

    python examples/c_suite.py            # the packaged model, or what AOS_LORAX_BASE_MODEL says

Nothing else is needed: no Kafka, no database, no API. The adapters are made here by plain PEFT: a few training steps on
two sentences each, from fixed seeds, enough to hear who speaks and not to make anybody wise.
"""

import asyncio
import tempfile
import time
from pathlib import Path
from typing import Any

import peft
import torch

from gpu_workers.bases.load import load
from rillfold.lorax import MLConfig, MLPipelineManager
from rillfold.settings import from_env

STEPS = 8
QUESTION = "What matters most this quarter?"
OFFICERS = {
    "CEO": "As chief executive I set the direction: one strategy, and the people to carry it.",
    "CFO": "As chief of finance I watch the cash: margins first, then what we may spend.",
    "COO": "As chief of operations I keep it running: fewer handovers, and orders on time.",
    "CTO": "As chief of technology I keep it working: small releases, and nothing that wakes us at night.",
    "CMO": "As chief of marketing I listen to the market: one message, told to those who need it.",
    "CHRO": "As chief of people I look after those who work here: hire slowly, and help them grow.",
}


def make_adapters(base: str, cache: Path, root: Path) -> dict[str, Path]:
    """A LoRA of rank 8 on q and v for each officer, saved as PEFT saves them."""
    model, tokenizer, _ = load(base, cache)
    lora = peft.LoraConfig(task_type="CAUSAL_LM", r=8, lora_alpha=16, target_modules=["q_proj", "v_proj"])
    wrapped: Any = None
    for seed, (role, creed) in enumerate(OFFICERS.items()):
        torch.manual_seed(seed)
        wrapped = peft.get_peft_model(model, lora, role) if wrapped is None else wrapped
        if role not in wrapped.peft_config:
            wrapped.add_adapter(role, lora)
        wrapped.set_adapter(role)
        train(wrapped, tokenizer, creed)
        wrapped.save_pretrained(root, selected_adapters=[role])
    return {role: root / role for role in OFFICERS}


def train(model: Any, tokenizer: Any, creed: str) -> None:
    prompt = f"<|im_start|>user\n{QUESTION}<|im_end|>\n<|im_start|>assistant\n"
    asked = tokenizer(prompt, return_tensors="pt").input_ids
    whole = tokenizer(f"{prompt}{creed}<|im_end|>", return_tensors="pt").input_ids
    labels = whole.clone()
    labels[:, : asked.shape[1]] = -100  # only what is answered is learned
    optimizer = torch.optim.AdamW([weight for weight in model.parameters() if weight.requires_grad], lr=5e-3)
    for _ in range(STEPS):
        model(input_ids=whole, labels=labels).loss.backward()
        optimizer.step()
        optimizer.zero_grad()


async def ask_all(pipeline: MLPipelineManager, adapters: dict[str, Path]) -> None:
    print(f"{await pipeline.start_lorax_server()} serves {pipeline.get_lorax_status()['base_model']}\n")
    try:
        for role, folder in adapters.items():
            pipeline.register_lorax_adapter(role, folder)
        wishes: list[dict[str, Any]] = [{"agent_role": role, "prompt": QUESTION, "max_tokens": 24} for role in adapters]
        began = time.monotonic()
        answers = await pipeline.lorax_batch_inference(wishes)
        together, metrics = time.monotonic() - began, pipeline.get_lorax_status()["metrics"]
        for answer in answers:
            print(f"{answer['agent_role']:5} {answer['text'].strip()}")
        began = time.monotonic()
        for wish, answer in zip(wishes, answers, strict=True):
            assert (await pipeline.lorax_inference(**wish))["text"] == answer["text"]
        alone = time.monotonic() - began
        print(f"\n{metrics['most_running']} of {len(wishes)} officers spoke at the same time, in one batch:")
        print(f"{together:.2f} s for all, {alone:.2f} s one after the other, with the same answers.\n")
        for role, stats in pipeline.get_lorax_adapter_stats().items():
            print(f"{role:5} {stats['requests']} requests, {stats['tokens']} tokens, {stats['bytes'] >> 10} KiB")
        print(f"in all {pipeline.get_lorax_status()['metrics']}")
    finally:
        await pipeline.stop_lorax_server()


def main() -> None:
    config, settings = MLConfig.from_env(), from_env()
    base = config.lorax().over(settings)
    with tempfile.TemporaryDirectory() as root:
        print(f"Training {len(OFFICERS)} adapters, {STEPS} steps each, by PEFT ...")
        adapters = make_adapters(base.bases()[base.base_name()], base.cache_dir, Path(root))
        asyncio.run(ask_all(MLPipelineManager(config, settings), adapters))


if __name__ == "__main__":
    main()
