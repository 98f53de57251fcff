"""A batch of 32 rows with 1, 4, 16 or 32 distinct adapters: our engine against PEFT's own mixed batch.

Same process, base weights, prompts and lengths; greedy; nobody stops early, so PEFT's lack of continuous batching
costs it nothing here. One thread and its processor time, so that a busy machine weighs little. The tokens are compared
first: a fast wrong answer is no figure.
"""

import time
from functools import partial
from random import Random
from typing import Any

import peft
import torch

from bench.harness import Figures, Ratio, compare
from gpu_workers.adapters.weights import LoraWeights
from gpu_workers.bases import load as base_model
from gpu_workers.bases.device import Device
from gpu_workers.serve.engine.decoder import Decoder
from gpu_workers.serve.engine.engine import Engine, LoraRow
from gpu_workers.serve.engine.schedule import Limits
from processors.train_settings import MODULES
from rillfold.settings import from_env

ROWS, PROMPT, NEW = 32, 18, 16
DISTINCT = (1, 4, 16, 32)


class Contest:
    """One base model, 32 adapters, and both ways to run them."""

    def __init__(self) -> None:
        torch.set_num_threads(1)
        settings = from_env()
        model, _, identity = base_model.load(settings.base_model, settings.cache_dir, Device("cpu", "float32", 1))
        self.name = identity.name
        self.decoder = Decoder(model)
        dice = Random(0)
        self.prompts = [[dice.randrange(model.config.vocab_size) for _ in range(PROMPT)] for _ in range(ROWS)]
        self.base_model = model
        self.peft: Any = _with_adapters(model)
        self.weights = [_weights(self.peft, f"a{i}") for i in range(ROWS)]
        self.engine = Engine(self.decoder, frozenset(), Limits(rows=ROWS))

    def ours(self, distinct: int | None, new: int = NEW) -> tuple[list[list[int]], float]:
        for i, prompt in enumerate(self.prompts):
            self.engine.submit(LoraRow(i, prompt, None if distinct is None else self.weights[i % distinct], new))
        rows = {row.ticket: row for row in self.engine.rows()}
        began = time.process_time()
        while self.engine.step():
            pass
        return [rows[i].said for i in range(ROWS)], time.process_time() - began

    def theirs(self, distinct: int | None, new: int = NEW) -> tuple[list[list[int]], float]:
        ids = torch.tensor(self.prompts)
        names = {"adapter_names": ["__base__" if distinct is None else f"a{i % distinct}" for i in range(ROWS)]}
        began = time.process_time()
        out = self.peft.generate(
            input_ids=ids, attention_mask=torch.ones_like(ids), max_new_tokens=new, min_new_tokens=new,
            do_sample=False, pad_token_id=0, **names,
        )  # fmt: skip
        return out[:, PROMPT:].tolist(), time.process_time() - began

    def rate(self, run: Any, distinct: int | None) -> Figures:
        _, seconds = run(distinct)
        return {"tokens/cpu-s": ROWS * NEW / seconds}


def _with_adapters(model: Any) -> Any:
    """Both matrices random: an adapter that changes what is said."""
    config = peft.LoraConfig(task_type="CAUSAL_LM", r=16, lora_alpha=32, target_modules=list(MODULES))
    wrapped: Any = peft.get_peft_model(model, config, adapter_name="a0")
    for i in range(1, ROWS):
        wrapped.add_adapter(f"a{i}", config)
    with torch.no_grad():
        for name, weight in wrapped.named_parameters():
            if "lora_B" in name:
                weight.normal_(0, 0.02)
    return wrapped.eval()


def _weights(wrapped: Any, adapter: str) -> LoraWeights:
    pairs = {}
    for name, module in wrapped.base_model.model.named_modules():
        if isinstance(module, peft.tuners.lora.LoraLayer):
            scale = module.scaling[adapter]
            pairs[name] = (module.lora_A[adapter].weight.data, module.lora_B[adapter].weight.data * scale)
    return LoraWeights(pairs, 16)


def main() -> None:
    contest = Contest()
    for distinct in DISTINCT:
        assert contest.ours(distinct, 6)[0] == contest.theirs(distinct, 6)[0], f"{distinct} adapters: other tokens"
    contestants = {"ours, base": partial(contest.rate, contest.ours, None)}
    contestants |= {f"ours, {u} adapters": partial(contest.rate, contest.ours, u) for u in DISTINCT}
    contestants |= {f"peft, {u} adapters": partial(contest.rate, contest.theirs, u) for u in DISTINCT}
    rate = "tokens/cpu-s"
    ratios = {f"peft, {u} adapters": Ratio(rate, f"ours, {u} adapters", f"peft, {u} adapters") for u in DISTINCT}
    ratios["ours, 1 adapter (at 32)"] = Ratio(rate, "ours, 32 adapters", "ours, 1 adapters")
    ratios["ours, base (at 1)"] = Ratio(rate, "ours, 1 adapters", "ours, base")
    compare(f"serve {contest.name} fp32, batch {ROWS}, r16 on 7 modules", contestants, ratios)


if __name__ == "__main__":
    main()
