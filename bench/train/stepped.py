"""A child that trains for some steps by our loop: job in, figures out."""

import json
import sys
from pathlib import Path

import msgspec

from bench.train.clock import Steps
from gpu_workers.bases import load as base_model
from gpu_workers.bases.before_torch import settle
from gpu_workers.bases.chat import Chat
from gpu_workers.bases.device import Device
from gpu_workers.train.learn.loop import Loop
from gpu_workers.train.learn.methods import METHODS
from gpu_workers.train.learn.samples import Text
from gpu_workers.train.learn.supervised import Supervised
from processors.training.settings import TrainSettings


def main() -> None:
    settle()
    job = json.loads(sys.argv[1])
    device = Device("cpu", "float32", job["threads"])
    device.pin()
    model, tokenizer, _ = base_model.load(job["base"], Path(job["cache"]), device)
    settings = msgspec.convert(job["settings"], TrainSettings, strict=False)
    learned = json.loads(Path(job["texts"]).read_text())
    texts = [Text(ids, [range(*each) for each in answers], story) for ids, answers, story in learned]
    adapted = METHODS["lora"](model, settings, settings.steps)
    loop = Loop(adapted, Supervised(texts, [], settings, Chat.of(tokenizer).end), settings, settings.steps)
    steps = Steps()
    for done in loop.run():
        steps.ended(done.loss)
    print(json.dumps(steps.figures()))


if __name__ == "__main__":
    main()
