"""One iteration: what was made is trained in a child, measured through the engine, and put where it stays."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path

import msgspec

from gpu_workers.adapters.store import CONFIG, TENSORS
from gpu_workers.errors import ChildDied
from gpu_workers.evaluate.written import ERRORS, METRICS, WrongAnswer
from gpu_workers.train.lines import MEASURED, Broken, RunSpec, Trained
from gpu_workers.train.parent import OnReport, Train
from processors.dataset.lessons import row_of
from processors.measure.cases import words
from processors.measure.measures import HELD_OUT, IRRELEVANCE, CaseOutcome, Suite
from processors.synthetic.making import Made
from processors.synthetic.mix import Slip
from rillfold.auto_lora.config import TrainingConfig
from rillfold.auto_lora.history import History
from rillfold.settings import Settings
from schemas.errors import Stop

WORDS = 200
"""Held-out requests that are answered in words, at most."""
STAYS = (TENSORS, CONFIG, METRICS, ERRORS)


class NotLearned(Stop):
    """A training that ended without an adapter."""


class Iteration(msgspec.Struct, frozen=True, kw_only=True):
    """What came of one."""

    number: int
    folder: Path
    suite: Suite
    """Every case by which it is held against another: calls, and what needs none."""
    before: float
    """Held-out calls that the base has exactly right."""
    after: float
    cases: int
    """Of held-out calls."""
    failures: tuple[Slip, ...]

    @property
    def all_right(self) -> bool:
        return all(each.right for each in self.suite.outcomes)


class Workroom:
    """Where iterations are trained: what a run needs, beside what is learned."""

    def __init__(self, config: TrainingConfig, settings: Settings, out: Path, train: Train) -> None:
        self._config, self._settings, self._out, self._train = config, settings, out, train

    async def iterate(
        self, number: int, history: History, measured: Mapping[str, Made], on_report: OnReport
    ) -> Iteration:
        """Raises NotLearned. What other iterations left stays as it is."""
        work = self._out / f".iteration_{number}"
        shutil.rmtree(work, ignore_errors=True)
        (work / "adapter").mkdir(parents=True)
        try:
            spec = await self._spec(work, history)
            trained = await self._trained(number, spec, on_report)
            found = _found(number, self._out / f"iteration_{number}", spec, trained, measured)
            _put(work, found.folder)
            return found
        finally:
            shutil.rmtree(work, ignore_errors=True)

    async def _spec(self, work: Path, history: History) -> RunSpec:
        learning = self._config.train_settings()
        manifest = await history.rows(work / "rows.jsonl", learning.select)
        return RunSpec(
            rows=work / "rows.jsonl",
            rows_sha256=manifest.rows_sha256,
            out=work / "adapter",
            cache=self._settings.cache_dir,
            base_model=self._config.base(self._settings),
            method="lora",
            settings=learning,
            threads=self._config.cores(),
            words=WORDS,
        )

    async def _trained(self, number: int, spec: RunSpec, on_report: OnReport) -> Trained:
        try:
            outcome = await self._train(spec, on_report)
        except ChildDied as error:
            raise NotLearned(f"Iteration {number} was not trained: {error}. What was made before is kept.") from error
        if isinstance(outcome, Broken):
            raise NotLearned(
                f"Iteration {number} was not trained ({outcome.reason}): {outcome.detail} What was made before is kept."
            )
        return outcome


def _found(number: int, folder: Path, spec: RunSpec, trained: Trained, measured: Mapping[str, Made]) -> Iteration:
    wrong = msgspec.json.decode((spec.out.parent / MEASURED / ERRORS).read_bytes(), type=list[WrongAnswer])
    suite, evaluation = _suite(spec, trained, wrong), trained.evaluation
    return Iteration(
        number=number,
        folder=folder,
        suite=suite,
        before=evaluation.before if evaluation else 0.0,
        after=evaluation.after if evaluation else 0.0,
        cases=evaluation.examples if evaluation else 0,
        failures=tuple(failure for each in wrong if (failure := _failure(each, measured)) is not None),
    )


def _suite(spec: RunSpec, trained: Trained, wrong: Sequence[WrongAnswer]) -> Suite:
    """Of words it counts that they are words: which ones is a matter of taste."""
    called = {each.id for each in wrong if each.suite == "words" and each.mistake != "other words"}
    rows = [row_of(line) for line in spec.rows.read_bytes().splitlines()]
    quiet = [CaseOutcome(id=each.id, right=each.id not in called) for each in words(rows, WORDS, lambda _: True)]
    suites = trained.measures.candidate if trained.measures else ()
    told = [each for suite in suites if suite.name in (HELD_OUT, IRRELEVANCE) for each in suite.outcomes]
    return Suite(name="made", outcomes=(*told, *quiet))


def _failure(wrong: WrongAnswer, measured: Mapping[str, Made]) -> Slip | None:
    """None: of made-up tools of others, or words that say the same otherwise."""
    if wrong.suite == IRRELEVANCE:
        return Slip("irrelevant", (), wrong.mistake)
    if wrong.mistake == "other words" or (made := measured.get(wrong.prompt[0].content)) is None:
        return None
    return Slip(made.kind, made.tools, wrong.mistake)


def _put(work: Path, folder: Path) -> None:
    """In one piece: a folder that is there is whole."""
    whole = work / "whole"
    whole.mkdir()
    for name in STAYS:
        beside = work / ("adapter" if name in (TENSORS, CONFIG) else MEASURED)
        (beside / name).replace(whole / name)
    whole.replace(folder)
