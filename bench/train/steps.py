"""A step, its memory, and a whole run, each beside transformers.Trainer with PEFT: same base, texts, batch and dtype.

Every turn of a contestant is a process of its own. Both learn from the same texts, once each; ours draws its batches by
the seed, the peer has its texts sorted by length.
"""

import json
from collections.abc import Callable, Collection
from functools import cached_property
from pathlib import Path
from typing import Any

import msgspec

from bench.harness import Figures, Ratio
from bench.part import Found, Part, beside
from bench.train.scene import Scene, child
from gpu_workers.bases import load as base_model
from gpu_workers.bases.chat import Chat
from gpu_workers.evaluate.asking import Asker, Side
from gpu_workers.evaluate.measure import CaseSizes, cases_of
from gpu_workers.train.learn.samples import texts
from gpu_workers.train.lines import to_bytes
from processors.dataset.lessons import row_of
from processors.training.settings import RULE_VERSION, TrainSettings
from rillfold.demo import data

BATCH, TOGETHER = 8, 4
"""`TOGETHER`: texts in memory at once where memory is what is measured, for both."""
RULE = RULE_VERSION
"""Of the dataset: from its third on, texts that begin alike are read once."""
DEMO: dict[str, Any] = {**data.RECIPE, "micro_batch": data.RECIPE["batch"]}
FIGURES = {"trainer_time": "cpu_s_per_step", "trainer_time_2": "cpu_s_per_step", "trainer_memory": "peak_rss_mb"}


class Contest:
    """Both contestants' jobs, of the same tokens."""

    def __init__(self, scene: Scene) -> None:
        self._scene = scene
        self._model, tokenizer, _ = base_model.load(scene.base, scene.cache)
        self._chat = Chat.of(tokenizer)
        self._rows = [row_of(line) for line in scene.rows.path.read_bytes().splitlines()]

    @cached_property
    def learned(self) -> list[Any]:
        found = texts(self._chat, (row for row in self._rows if not row.held_out), TrainSettings().max_tokens)
        return [(text.ids, [(each.start, each.stop) for each in text.answers], text.story) for text in found]

    @cached_property
    def measured(self) -> Path:
        """Prompts and right answers of every case that we ask, suite by suite; none where words are right."""
        suites: dict[str, list[tuple[list[int], list[int]]]] = {}
        for case in cases_of(Asker(self._model, self._chat), self._rows, Side(), CaseSizes()):
            shown = case.tools if case.shown else None
            right = [] if case.right is None else self._chat.sample((*case.prompt, case.right), shown).answer
            suites.setdefault(case.suite, []).append((self._chat.prompt(case.prompt, shown), right))
        return self._kept("measured", suites)

    def steps(self, who: str, threads: int, settings: TrainSettings) -> Callable[[int], Figures]:
        few = self._kept(f"texts-{settings.steps * settings.batch}", self.learned[: settings.steps * settings.batch])
        job = self._job(few, threads, settings)
        module = "stepped" if who == "ours" else "trainer_peer"
        return lambda turn: child(module, job | {"out": self._scene.root / f"{who}-{turn}", "measured": None}, threads)

    def whole(self, settings: TrainSettings) -> Callable[[int], Figures]:
        every = self._kept("texts", self.learned)
        job = self._job(every, self._scene.threads, settings) | {"measured": self.measured, "end": self._chat.end}
        return lambda turn: child(
            "trainer_peer", job | {"out": self._scene.root / f"peer-run-{turn}"}, self._scene.threads
        )

    def _job(self, learned: Path, threads: int, settings: TrainSettings) -> dict[str, Any]:
        plain = msgspec.to_builtins(settings)
        base = {"base": self._scene.folder, "cache": self._scene.cache}
        return base | {"texts": learned, "threads": threads, "settings": plain}

    def _kept(self, name: str, tokens: object) -> Path:
        path = self._scene.root / f"{name}.json"
        path.write_text(json.dumps(tokens))
        return path


def settings(steps: int, together: int) -> TrainSettings:
    return TrainSettings(rule=RULE, steps=steps, batch=BATCH, micro_batch=together, dropout=0.0)


def run(scene: Scene, keys: Collection[str]) -> Found:
    """Contestants of the wanted figures: (ours, peer) on one and two threads, and with fewer texts in memory."""
    contest = Contest(scene)
    of = {"trainer_time": (1, BATCH), "trainer_time_2": (2, BATCH), "trainer_memory": (scene.threads, TOGETHER)}
    contestants: dict[str, Callable[[int], Figures]] = {}
    ratios: dict[str, Ratio] = {}
    for key in keys:
        threads, together = of[key]
        about = f"{threads} thread{'s' * (threads > 1)}, {together} of {BATCH} texts at once"
        ours, peer = f"ours, {about}", f"transformers.Trainer and PEFT, {about}"
        contestants[ours] = contest.steps("ours", threads, settings(scene.steps, together))
        contestants[peer] = contest.steps("peer", threads, settings(scene.steps, together))
        ratios[key] = Ratio(FIGURES[key], ours, peer)
    return beside("train steps", contestants, ratios, scene)


def run_whole(scene: Scene, _: Collection[str]) -> Found:
    """Load, measure, train, measure, save: processor seconds of the whole process, imports and all."""
    recipe = TrainSettings(rule=RULE, **DEMO)
    ours, peer = "ours, whole run", "transformers, PEFT and generate, whole run"

    def turn_of_ours(turn: int) -> Figures:
        spec = scene.spec(f"run-{turn}", "lora", recipe, scene.rows)
        said = child("ran", to_bytes(spec).decode(), scene.threads)
        return {key: value for key, value in said.items() if not key.endswith("sha256")}

    contestants = {ours: turn_of_ours, peer: Contest(scene).whole(recipe)}
    return beside("train run", contestants, {"trainer_run": Ratio("cpu_s", ours, peer)}, scene)


PARTS = [
    Part("step", ("trainer_time", "trainer_time_2"), run),
    Part("memory", ("trainer_memory",), run),
    Part("run", ("trainer_run",), run_whole),
]
