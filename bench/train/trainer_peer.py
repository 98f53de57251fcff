"""transformers.Trainer and PEFT, at their best on a CPU: a child that trains for some steps, or does a whole run.

Tuned: texts stand sorted by length, so that next to nothing is padded; no mask, where padding stands behind all that is
learned, which is the fast path of its attention; labels at answers alone; nothing logged, evaluated or saved on the
way; adamw_torch; no token is made twice. Its head runs at every place, as Trainer and the model's own loss do.
"""

import json
import sys
from pathlib import Path
from typing import Any

import peft
import torch
from transformers import AutoModelForCausalLM, Trainer, TrainerCallback, TrainingArguments

from bench.train.clock import Steps, whole

MODULES = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
GENERATED = 64
"""Requests in one batch, as we have them."""
IDLE_TOKENS = 32
"""Of an answer to a request that needs no call."""


class Clock(TrainerCallback):
    def __init__(self, steps: Steps) -> None:
        self._steps = steps

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self._steps.begin()

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self._steps.ended(0.0)


def load(folder: str) -> Any:
    return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)


def adapted(model: Any, settings: dict[str, Any]) -> Any:
    torch.manual_seed(settings["seed"])
    config = peft.LoraConfig(
        task_type=peft.TaskType.CAUSAL_LM,
        r=settings["rank"],
        lora_alpha=settings["alpha"],
        lora_dropout=settings["dropout"],
        target_modules=MODULES,
    )
    return peft.get_peft_model(model, config)


def labelled(texts: list[Any]) -> list[dict[str, list[int]]]:
    rows = []
    for ids, answers, _ in sorted(texts, key=lambda text: len(text[0])):
        labels = [-100] * len(ids)
        for start, stop in answers:
            labels[start:stop] = ids[start:stop]
        rows.append({"input_ids": ids, "labels": labels})
    return rows


def collated(rows: list[dict[str, list[int]]]) -> dict[str, torch.Tensor]:
    longest = max(len(row["input_ids"]) for row in rows)
    fill = {"input_ids": 0, "labels": -100}
    return {
        key: torch.tensor([row[key] + [pad] * (longest - len(row[key])) for row in rows]) for key, pad in fill.items()
    }


def train(model: Any, texts: list[Any], settings: dict[str, Any], out: Path) -> dict[str, float]:
    steps = Steps()
    args = TrainingArguments(
        output_dir=str(out),
        per_device_train_batch_size=settings["micro_batch"],
        gradient_accumulation_steps=settings["batch"] // settings["micro_batch"],
        learning_rate=settings["learning_rate"],
        lr_scheduler_type="linear",
        warmup_steps=settings["warmup"],
        max_steps=settings["steps"],
        optim="adamw_torch",
        weight_decay=0.0,
        train_sampling_strategy="sequential",
        save_strategy="no",
        logging_strategy="no",
        report_to="none",
        use_cpu=True,
        disable_tqdm=True,
        dataloader_pin_memory=False,
        remove_unused_columns=False,
        seed=settings["seed"],
    )
    rows: Any = labelled(texts)
    Trainer(model=model, args=args, train_dataset=rows, data_collator=collated, callbacks=[Clock(steps)]).train()
    return steps.figures()


def exact(model: Any, suites: dict[str, list[Any]], end: int) -> float:
    """What is held out, of all that is asked: an answer counts where it is the right one, token for token."""
    model.eval()
    right = {suite: sum(_right(model, part, end) for part in _parts(cases)) for suite, cases in suites.items()}
    return right["held_out"] / len(suites["held_out"])


def _parts(cases: list[Any]) -> list[list[Any]]:
    ordered = sorted(cases, key=lambda each: len(each[0]))
    return [ordered[start : start + GENERATED] for start in range(0, len(ordered), GENERATED)]


def _right(model: Any, part: list[Any], end: int) -> int:
    """Greedy, batched, padded on the left. Who should call nothing has no more tokens than we give before we look."""
    longest = max(len(prompt) for prompt, _ in part)
    ids = torch.tensor([[end] * (longest - len(prompt)) + prompt for prompt, _ in part])
    mask = torch.tensor([[0] * (longest - len(prompt)) + [1] * len(prompt) for prompt, _ in part])
    answers = max(len(answer) for _, answer in part)
    with torch.inference_mode():
        out = model.generate(
            input_ids=ids,
            attention_mask=mask,
            max_new_tokens=answers + 8 if answers else IDLE_TOKENS,
            do_sample=False,
            eos_token_id=end,
            pad_token_id=end,
        )
    said = out[:, longest:].tolist()
    return sum(bool(answer) and row[: len(answer)] == answer for row, (_, answer) in zip(said, part, strict=True))


def main() -> None:
    job = json.loads(sys.argv[1])
    torch.set_num_threads(job["threads"])
    texts = json.loads(Path(job["texts"]).read_text())
    model = load(job["base"])
    out = Path(job["out"])
    if not job["measured"]:
        print(json.dumps(train(adapted(model, job["settings"]), texts, job["settings"], out)))
        return
    measured = json.loads(Path(job["measured"]).read_text())
    before = exact(model, measured, job["end"])
    learned = adapted(model, job["settings"])
    train(learned, texts, job["settings"], out)
    after = exact(learned, measured, job["end"])
    learned.save_pretrained(out)
    print(json.dumps(whole() | {"before": before, "after": after}))


if __name__ == "__main__":
    main()
