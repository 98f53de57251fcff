"""One iteration: a training is asked for, and what came of it and of its measure is put where it stays."""

from __future__ import annotations

import shutil
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path

import msgspec

from gpu_workers.adapters.origin import fetched
from gpu_workers.adapters.store import CONFIG, TENSORS
from gpu_workers.errors import Unhealthy
from gpu_workers.evaluate.written import ERRORS, METRICS, WrongAnswer
from gpu_workers.train.lines import MADE_UP, MADE_WORDS
from gpu_workers.train.parent import OnReport
from processors.dataset.lessons import Row, row_of
from processors.dataset.selection import Selection
from processors.measure.cases import Case, held_out, tools_of, words
from processors.measure.foreign import Foreign
from processors.measure.measures import IRRELEVANCE, CaseOutcome, Suite
from processors.synthetic.making import Made
from processors.synthetic.mix import Slip
from processors.training.settings import spelled
from projections.lora_adapters import Adapter
from rillfold.auto_lora.config import AGENT, TrainingConfig
from rillfold.auto_lora.history import History
from rillfold.auto_lora.room import room
from rillfold.event_log import first
from rillfold.settings import Settings
from schemas.adapters import Evaluation
from schemas.errors import Stop
from schemas.training import TrainingRequested

NOBODY = Evaluation(examples=0, before=0.0, after=0.0)
KEPT = "What was made before is kept."
Beside = Callable[[Path], Awaitable[None]]
"""Puts more into a folder before it stands in its place."""


class NotLearned(Stop):
    """A training that ended without an adapter."""


class TrainedAdapter(msgspec.Struct, frozen=True, kw_only=True):
    """An adapter that was trained and measured."""

    folder: Path
    adapter: Adapter
    """As the log has it."""
    rows: list[Row]
    wrong: list[WrongAnswer]


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
    """Where adapters are asked for, and where they go."""

    def __init__(self, config: TrainingConfig, settings: Settings, history: History) -> None:
        self._config, self._settings, self._history = config, settings, history

    async def learn(self, select: Selection, folder: Path, on_report: OnReport, beside: Beside) -> TrainedAdapter:
        """Of all that was told. Raises NotLearned; what stands already stays as it is."""
        learning = self._config.train_settings(select)
        request = TrainingRequested(
            **first(self._config.company),
            role=AGENT,
            base_model=self._config.base_name(self._settings),
            ranges=await self._history.ranges(),
            settings=spelled(learning),
        )
        folder.parent.mkdir(parents=True, exist_ok=True)
        with room(folder.parent, ".draft") as apart:
            draft = apart / folder.name
            draft.mkdir()
            adapter = await self._trained(request, folder.name, on_report)
            self._fetch(adapter, draft)
            await self._history.rows(apart / "rows", request.ranges, select)
            rows = [row_of(line) for line in (apart / "rows").read_bytes().splitlines()]
            wrong = msgspec.json.decode((draft / ERRORS).read_bytes(), type=list[WrongAnswer])
            await beside(draft)
            draft.replace(folder)
            return TrainedAdapter(folder=folder, adapter=adapter, rows=rows, wrong=wrong)

    async def _trained(self, request: TrainingRequested, what: str, on_report: OnReport) -> Adapter:
        try:
            run = await self._history.trained(request, on_report)
        except Unhealthy as error:
            raise NotLearned(f"{what} was not trained: {error} {KEPT}") from error
        if run.status != "completed":
            raise NotLearned(f"{what} was not trained ({run.reason}): {run.detail.rstrip('.')}. {KEPT}")
        return await self._history.adapter(request, run)

    def _fetch(self, adapter: Adapter, draft: Path) -> None:
        """Out of the store, where a training worker has put it. Raises ArtifactMissing where that is another store."""
        place, _facts = fetched(self._history.store, adapter.sha256, self._config.company)
        for name in (TENSORS, CONFIG):
            shutil.copyfile(place / name, draft / name)
        for name, path in self._history.store.measured(adapter.sha256, (METRICS, ERRORS)).items():
            shutil.copyfile(path, draft / name)


def iteration_of(number: int, trained: TrainedAdapter, measured: Mapping[str, Made], calls: int) -> Iteration:
    """`measured`: what was held out, by its question; `calls`: so many of its requests were asked at most."""
    evaluation = trained.adapter.evaluation or NOBODY
    return Iteration(
        number=number,
        folder=trained.folder,
        suite=_suite(trained, calls),
        before=evaluation.before,
        after=evaluation.after,
        cases=evaluation.examples,
        failures=tuple(slip for each in trained.wrong if (slip := _slip(each, measured)) is not None),
    )


def _suite(trained: TrainedAdapter, calls: int) -> Suite:
    """Each case that was asked; it is told which were wrong. Of words it counts that they are words: which ones is a
    matter of taste."""
    rows = trained.rows
    nothing_fits = Foreign(own=tools_of(rows)).nothing_fits(MADE_UP)
    cases = [*held_out(rows, calls, _any), *nothing_fits, *words(rows, MADE_WORDS, _any)]
    wrong = {(each.suite, each.id) for each in trained.wrong if each.mistake != "other words"}
    return Suite(
        name="made", outcomes=tuple(CaseOutcome(id=it.id, right=(it.suite, it.id) not in wrong) for it in cases)
    )


def _any(_case: Case) -> bool:
    return True


def _slip(wrong: WrongAnswer, measured: Mapping[str, Made]) -> Slip | None:
    """None: of made-up tools of others, or words that say the same otherwise."""
    if wrong.suite == IRRELEVANCE:
        return Slip("irrelevant", (), wrong.mistake)
    if wrong.mistake == "other words" or (made := measured.get(wrong.prompt[0].content)) is None:
        return None
    return Slip(made.kind, made.tools, wrong.mistake)
