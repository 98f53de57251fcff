"""One model, one batch: two companies, the base, LoRA, AdaLoRA and activated adapters, each answer forced to its tools.

    python examples/one_batch.py          # the packaged model, or what RILLFOLD_BASE_MODEL says

Nothing else is needed. The adapters are made here by plain PEFT from dice: what they say is no sense, and all of it is
a well-formed call all the same.
"""

import asyncio
import json
import tempfile
from collections.abc import Mapping
from itertools import pairwise
from pathlib import Path
from typing import Any

import peft
import torch

from gpu_workers.bases.before_torch import settle
from gpu_workers.bases.chat import Chat
from gpu_workers.bases.load import load
from gpu_workers.serve.engines.embedded import EmbeddedEngine
from gpu_workers.serve.engines.start import EngineSetup, embedded
from gpu_workers.serve.port import AdapterKey, AdapterSpec, Answer, MustCall, Outcome, Question
from gpu_workers.train.learn.activation import generation_prompt
from processors.training.settings import MODULES
from rillfold.settings import from_env
from schemas.company import Message


def tool(name: str, **fields: Mapping[str, Any]) -> dict[str, Any]:
    return {"name": name, "parameters": {"type": "object", "properties": fields, "required": list(fields)}}


TOOLS = [
    tool("refund", order={"type": "string", "pattern": "[A-Z]-[0-9]{4}"}, cents={"type": "integer", "maximum": 9999}),
    tool("escalate", urgent={"type": "boolean"}, team={"enum": ["billing", "shipping"]}),
]
LORA: dict[str, Any] = {"task_type": "CAUSAL_LM", "target_modules": list(MODULES), "lora_alpha": 16}


def make_adapters(model: Any, chat: Chat, root: Path) -> dict[str, Path]:
    """Activated ones act from where the answer begins: the prompt before is the base model's, and read once for all."""
    trigger = list(generation_prompt(chat))
    configs = {
        "acme/lora": peft.LoraConfig(r=8, **LORA),
        "acme/critic": peft.LoraConfig(r=8, alora_invocation_tokens=trigger, **LORA),
        "acme/editor": peft.LoraConfig(r=16, alora_invocation_tokens=trigger, **LORA),
        "globex/ada": peft.AdaLoraConfig(init_r=6, target_r=4, total_step=10, **LORA),
    }
    return {name: _made(model, config, root / name, seed) for seed, (name, config) in enumerate(configs.items())}


def _made(model: Any, config: peft.PeftConfig, folder: Path, seed: int) -> Path:
    wrapped: Any = peft.get_peft_model(model, config)
    dice = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, weight in wrapped.named_parameters():
            if "lora_" in name:
                weight.copy_(torch.randn(weight.shape, generator=dice) * 0.05)
    wrapped.save_pretrained(folder)
    wrapped.unload()
    return folder


async def ask(engine: EmbeddedEngine, company: str, adapter: str | None, heard: list[str]) -> Outcome:
    """`heard` gets the row's name with each snippet of its answer."""
    story = "Customer C-4711 waits for order A-1234 since Monday, and calls daily. " * 2
    question = Question(
        id=f"{company}-{adapter}",
        company=company,
        messages=(Message(role="user", content=story),),
        tools=json.dumps(TOOLS),
        adapter=adapter,
        must=MustCall(),
    )
    return await engine.answer(question, lambda _: heard.append(question.id))


def told(company: str, adapter: str | None, outcome: Outcome) -> str:
    if not isinstance(outcome, Answer):
        return f"{outcome.reason}: {outcome.detail}"
    said = "".join(f"{call.name}({call.arguments})" for call in outcome.calls) or f"cut: {outcome.text}"
    read = f"{outcome.cached_tokens} of {outcome.prompt_tokens}"
    return f"{company:7} {adapter or 'the base':12} read before: {read:11} {said}"


async def main() -> None:
    settings = from_env()
    base = settings.bases()[settings.base_name()]
    with tempfile.TemporaryDirectory() as root:
        model, tokenizer, _ = load(base, settings.cache_dir)
        folders = make_adapters(model, Chat.of(tokenizer), Path(root))
        async with embedded(base, settings.cache_dir, EngineSetup()) as engine:
            for name, folder in folders.items():
                await engine.load(AdapterSpec(key=AdapterKey(name, 1), folder=folder))
            heard: list[str] = []
            asked = [("acme", None), ("globex", None), *((name.partition("/")[0], name) for name in folders)]
            outcomes = await asyncio.gather(*(ask(engine, *each, heard) for each in asked))
    for each, outcome in zip(asked, outcomes, strict=True):
        print(told(*each, outcome))
    turns = sum(one != other for one, other in pairwise(heard))
    print(f"{len(heard)} snippets came in one stream, and {turns} times the next one was another row's.")


if __name__ == "__main__":
    settle()
    asyncio.run(main())
