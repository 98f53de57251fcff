"""The loop: make data, train, measure, and let the mistakes decide what is made next."""

from __future__ import annotations

import asyncio
import json
import shutil
from collections import Counter
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import msgspec

from gpu_workers.bases.files import look
from gpu_workers.train.lines import Report
from gpu_workers.train.parent import Train, train_in_child
from processors.measure.confidence import difference
from processors.synthetic.checks import Judge
from processors.synthetic.definition import ToolDefinition
from processors.synthetic.generator import Generator, Harvest, Writer
from processors.synthetic.making import Made
from processors.synthetic.mix import Mix, first_mix, next_mix
from projections.lora_adapters import Adapter
from rillfold.auto_lora.config import TrainingConfig, made_by
from rillfold.auto_lora.gguf_files import Export, GgufFiles, exported
from rillfold.auto_lora.history import History, Say, unsaid
from rillfold.auto_lora.iteration import Iteration, Workroom, iteration_of
from rillfold.auto_lora.logs import log_for
from rillfold.auto_lora.made import event_of, loop_of
from rillfold.auto_lora.room import OutputInUse, alone
from rillfold.event_log import now
from rillfold.settings import from_env
from schemas.errors import Stop

FINAL, MIX = "final_adapter", "mix.json"
OnTraining = Callable[[int, Report], None]
"""(iteration, what the training says)."""


def unseen(_iteration: int, _report: Report) -> None:
    """Shown to nobody."""


class AutoLoRACreator:
    """An adapter for tools that nobody has data of."""

    def __init__(
        self,
        config: TrainingConfig | None = None,
        out: Path | str = "lora_adapters",
        *,
        writer: Writer | None = None,
        judge: Judge | None = None,
        export: Export | None = None,
        kafka: bool = False,
        say: Say = unsaid,
        on_training: OnTraining = unseen,
        train: Train = train_in_child,
    ) -> None:
        self.config, self.out, self.tools = config or TrainingConfig(), Path(out), list[ToolDefinition]()
        self._writer, self._judge, self._export, self.kafka = writer, judge, export, kafka
        self._say, self._on_training, self._train = say, on_training, train

    def add_tool(self, tool: ToolDefinition) -> None:
        self.tools.append(tool)

    async def create_adapter(self, num_iterations: int = 3) -> tuple[Path, dict[str, Any]]:
        """The best adapter's folder, and what was measured. Raises Stop with one line; what was made before stays."""
        if num_iterations < 1:
            raise Stop(f"{num_iterations} iterations make no adapter: ask for one at least.")
        generator = Generator(self.tools, self._judge, self._writer)
        self.config.train_settings()
        look(self.config.base(from_env()))
        with alone(out := self.out.absolute()):
            self._must_be_free()
            async with log_for(self.config, out, self._train, self.say, kafka=self.kafka) as history:
                export = self._export or GgufFiles(self.config)
                return await _Loop(self, generator, history, export).run(num_iterations)

    def say(self, line: str) -> None:
        self._say(line)

    async def seen(self, number: int, report: Report) -> None:
        self._on_training(number, report)

    def _must_be_free(self) -> None:
        if there := sorted(self.out.glob("iteration_*")) + sorted(self.out.glob(FINAL)):
            raise OutputInUse(f"{there[0]} is of another run: name another folder, or move that one away.")


class _Loop:
    """One run of a creator."""

    def __init__(self, creator: AutoLoRACreator, generator: Generator, history: History, export: Export) -> None:
        self._creator, self._generator, self._history, self._export = creator, generator, history, export
        self._name = loop_of(creator.tools, creator.config.seed, shared=creator.kafka)
        self._learned: list[Made] = []
        self._done: list[Iteration] = []

    async def run(self, most: int) -> tuple[Path, dict[str, Any]]:
        config, out = self._creator.config, self._creator.out.absolute()
        room, own = Workroom(config, from_env(), self._history), made_by(self._name)
        mix = first_mix([tool.name for tool in self._creator.tools], config.num_synthetic_examples, config.temperature)
        measured = await self._measured(mix)
        apart = self._generator.held_out(measured)
        by_question = {each.question: each for each in measured}
        for number in range(1, most + 1):
            seed = f"{config.seed}/{number}"
            batch = await asyncio.to_thread(self._generator.learned, mix, seed, apart, tuple(self._learned))
            await self._taken(number, mix, batch)
            folder, seen = out / f"iteration_{number}", partial(self._creator.seen, number)
            learned = await room.learn(own, folder, seen, partial(self._beside, mix, batch))
            found = iteration_of(number, learned, by_question, config.held_out)
            helped = self._helped(found)
            self._done.append(found)
            self._keep_best()
            self._creator.say(_line(found))
            self._creator.say(_version(number, learned.adapter))
            if why := self._over(found, helped, most):
                break
            mix = next_mix(mix, found.failures, len(found.suite.outcomes))
        self._creator.say(f"It ends: {why}. The best is iteration {self._best.number}: {self._creator.out / FINAL}")
        return self._creator.out / FINAL, self._metrics(why)

    async def _measured(self, mix: Mix) -> Sequence[Made]:
        """So many with calls, and those without as their share has it."""
        config = self._creator.config
        calls = {kind: share for kind, share in mix.kinds.items() if kind != "irrelevant"}
        idle = max(1, round(config.held_out * mix.kinds["irrelevant"] / sum(calls.values())))
        made: list[Made] = []
        for kinds, count in ((calls, config.held_out), ({"irrelevant": 1.0}, idle)):
            part = msgspec.structs.replace(mix, kinds=kinds, examples=count)
            batch = await asyncio.to_thread(self._generator.measured, part, config.seed)
            self._say_notes(batch)
            made += batch.made
        self._creator.say(f"{len(made)} conversations are held out: measured on, and never learned.")
        await self._tell(made)
        return made

    async def _taken(self, number: int, mix: Mix, batch: Harvest) -> None:
        self._creator.say(f"iteration {number}: {mix}")
        self._say_notes(batch)
        if dropped := ", ".join(f"{count} {reason}" for reason, count in sorted(batch.dropped.items())):
            self._creator.say(f"iteration {number}: dropped while making: {dropped}")
        self._learned += batch.made
        await self._tell(batch.made)

    async def _tell(self, made: Sequence[Made]) -> None:
        await self._history.tell([event_of(each, self._creator.config.company, now(), self._name) for each in made])

    async def _beside(self, mix: Mix, batch: Harvest, folder: Path) -> None:
        _write_mix(folder, mix, batch)
        await exported(self._export, folder, self._creator.say)

    def _say_notes(self, batch: Harvest) -> None:
        for note in batch.notes:
            self._creator.say(note)

    def _helped(self, found: Iteration) -> bool:
        """Better than the best before it, by more than chance explains."""
        return not self._done or difference(found.suite, self._best.suite).low > 0

    def _over(self, found: Iteration, helped: bool, most: int) -> str:
        if found.all_right:
            return "every held-out request is answered rightly"
        if not helped:
            return f"iteration {found.number} is not better than the best before it by more than chance explains"
        return f"{most} iterations were asked for" if found.number == most else ""

    @property
    def _best(self) -> Iteration:
        """The first of those with the most right."""
        return max(self._done, key=lambda each: (each.suite.share, -each.number))

    def _keep_best(self) -> None:
        """After each iteration: whatever ends the next one, the best so far is there."""
        final, draft = self._creator.out / FINAL, self._creator.out / f".{FINAL}"
        shutil.rmtree(draft, ignore_errors=True)
        shutil.copytree(self._best.folder, draft)
        shutil.rmtree(final, ignore_errors=True)
        draft.replace(final)

    def _metrics(self, why: str) -> dict[str, Any]:
        best = self._best
        return {
            "iteration": best.number,
            "before": best.before,
            "after": best.after,
            "held_out": best.cases,
            "quiet": _quiet(best),
            "stopped": why,
            "iterations": [
                {"iteration": each.number, "before": each.before, "after": each.after, "quiet": _quiet(each)}
                for each in self._done
            ],
        }


def _quiet(found: Iteration) -> float:
    """Share of the requests that need no call which got none."""
    calls = round(found.after * found.cases)
    right, rest = sum(each.right for each in found.suite.outcomes), len(found.suite.outcomes) - found.cases
    return (right - calls) / rest if rest else 1.0


def _line(found: Iteration) -> str:
    wrong = Counter(f"{each.kind} {'+'.join(each.tools)} {each.mistake}".replace("  ", " ") for each in found.failures)
    told = "; ".join(f"{count} {what}" for what, count in wrong.most_common(5)) or "none"
    shares = f"{found.after:.3f} of {found.cases} held-out calls exact (base: {found.before:.3f})"
    quiet = f"{_quiet(found):.3f} answered in words where no call is right"
    return f"iteration {found.number}: {shares}, {quiet}; wrong: {told}"


def _version(number: int, adapter: Adapter) -> str:
    gate = "promoted" if adapter.promoted else "not promoted"
    return f"iteration {number}: {adapter.adapter}@{adapter.version}, by the gate {gate}: {adapter.verdict}"


def _write_mix(folder: Path, mix: Mix, batch: Harvest) -> None:
    told = {"mix": msgspec.to_builtins(mix), "made": len(batch.made), "dropped": dict(batch.dropped)}
    (folder / MIX).write_text(json.dumps(told, indent=1) + "\n")
