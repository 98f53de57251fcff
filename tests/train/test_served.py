"""A run is measured against what answers for its role now, where that can be measured on its base."""

from __future__ import annotations

import shutil
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
from msgspec import structs

from gpu_workers.adapters.store import Facts, FolderStore
from gpu_workers.train.lines import Broken, RunSpec
from gpu_workers.train.run import run
from processors.dataset.lessons import line_of, row_of
from processors.measure.measures import HELD_OUT
from processors.training.promotion import GateFloors, judge
from processors.training.settings import TrainSettings
from rillfold.demo import data
from schemas.adapters import AdapterJudged, AdapterReady, RolloutDecided
from schemas.topics import TopicNames
from streams.log.memory import MemoryLog
from tests.support.made import made_once
from tests.support.models import ALL, save_adapter
from tests.support.training import write_rows

from .test_hostile_requests import SHORT, declines
from .test_trainer import Office, ended, of


@pytest.fixture
async def office(tmp_path: Path, tiny_base: Path) -> Office:
    return await Office(MemoryLog(), TopicNames(), tmp_path, tiny_base).open()


async def test_what_answers_now_is_given_to_the_child_and_the_base_model_where_nothing_does(office: Office) -> None:
    given: list[tuple[Path | None, int | None]] = []

    async def looks(spec, on_report) -> Broken:
        given.append((spec.served, spec.served_version))
        return await declines(spec, on_report)

    await office.append(office.request("first", settings=SHORT))
    await office.until(office.trainer(), ended("first"))
    (ready,) = await office.ready()
    decided = RolloutDecided(
        id="d", company="acme", time=2, correlation="d", adapter="acme/default", adapter_version=1, percent=100
    )
    await office.append(decided, office.request("next"), office.request("other", role="other"))
    await office.until(office.trainer(name="two", train=looks), ended("next", "other"))
    assert given == [(office.store.place(ready.sha256), 1), (None, None)]
    shutil.rmtree(office.store.place(ready.sha256))
    await office.append(office.request("last", settings=SHORT))
    await office.until(office.trainer(name="three", train=looks), ended("last"))
    assert given[2:] == [(None, 1)], "it answers, and is not at hand"


@pytest.mark.parametrize("why", ["another base", "not at hand"])
def test_a_version_that_cannot_be_asked_is_named_and_the_base_does_not_stand_in(
    tmp_path: Path, tiny_base: Path, tiny_loaded: Any, quick: TrainSettings, why: str
) -> None:
    """One that was trained in four bits answers now, say."""
    manifest = write_rows(tmp_path / "rows", data.ACME, 4, 4)
    store = FolderStore(tmp_path / "store")
    folder = save_adapter(tiny_loaded[0], tmp_path / "a", 1, r=4, lora_alpha=8, target_modules=ALL)
    base_sha256 = tiny_loaded[2].quantised().sha256
    facts = Facts(company="acme", base_model="t", base_sha256=base_sha256, tools_in_prompt=False)
    (tmp_path / "out").mkdir()
    spec = RunSpec(
        rows=tmp_path / "rows",
        rows_sha256=manifest.rows_sha256,
        out=tmp_path / "out",
        cache=tmp_path,
        base_model=str(tiny_base),
        method="lora",
        settings=quick,
        threads=1,
        served=store.place(store.put(folder, facts)) if why == "another base" else None,
        served_version=7,
    )
    found = run(spec, lambda _report: None)
    assert found.measures is not None and found.evaluation is not None
    assert (found.measures.against, found.measures.comparable, found.measures.served) == (7, False, ())
    assert judge(found.measures, GateFloors(irrelevance=0, malformed=1), 7).reason == "not_comparable"


@pytest.mark.parametrize(("answers", "cases"), [(None, 6), (7, 5)])
def test_the_gate_asks_as_much_as_it_needs_and_beside_a_version_only_what_none_was_trained_on(
    tmp_path: Path, tiny_base: Path, tiny_loaded: Any, quick: TrainSettings,
    answers: int | None, cases: int, monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    """Of six held-out requests the run's own selection holds out one, and whoever asks wants one measured."""
    monkeypatch.setattr("gpu_workers.train.run.MADE_UP", 1)
    write_rows(tmp_path / "rows", data.ACME, 4, 5)
    rows = [row_of(line) for line in (tmp_path / "rows").read_bytes().splitlines()]
    first = next(row for row in rows if not row.held_out and row.answer.tool_calls)
    lines = b"".join(line_of(structs.replace(row, held_out=row.held_out or row is first)) for row in rows)
    (tmp_path / "rows").write_bytes(lines)
    store = FolderStore(tmp_path / "store")
    folder = save_adapter(tiny_loaded[0], tmp_path / "a", 1, r=4, lora_alpha=8, target_modules=ALL)
    facts = Facts(company="acme", base_model="t", base_sha256=tiny_loaded[2].sha256, tools_in_prompt=False)
    (tmp_path / "out").mkdir()
    spec = RunSpec(
        rows=tmp_path / "rows",
        rows_sha256=sha256(lines).hexdigest(),
        out=tmp_path / "out",
        cache=tmp_path,
        base_model=str(tiny_base),
        method="lora",
        settings=structs.replace(quick, evaluation_rows=1, steps=1),
        threads=1,
        served=store.place(store.put(folder, facts)) if answers else None,
        served_version=answers,
    )
    found = run(spec, lambda _report: None).measures
    assert found is not None and found.comparable
    assert [len(suite.outcomes) for suite in (*found.candidate, *found.served) if suite.name == HELD_OUT] == [cases] * 2


async def test_what_was_not_measured_answers_where_none_does_and_replaces_none_that_was_promoted_meanwhile(
    office: Office,
) -> None:
    """The first is the company's first; while the third is trained, a person promotes the second."""

    async def promotes(spec, on_report):
        if spec.settings.seed == 3:
            assert spec.served_version == 1
            await office.append(structs.replace(by_hand, adapter_version=2))
        return await made_once(spec, on_report)

    by_hand = RolloutDecided(
        id="d", company="acme", time=2, correlation="d", adapter="acme/default", adapter_version=2, percent=100
    )
    unmeasured = '{"rank": 1, "steps": 1, "batch": 1, "warmup": 0, "evaluation_rows": 0, "seed": %d}'
    for seed in (1, 2, 3):
        await office.append(office.request(f"r{seed}", settings=unmeasured % seed))
        await office.until(office.trainer(name=f"w{seed}", train=promotes), ended(f"r{seed}"))
    verdicts = of(await office.said("adapter-ready"), AdapterJudged)
    assert [(each.promoted, each.reason, each.against) for each in verdicts] == [
        (True, "not_measured", None),
        (False, "not_measured", 1),
        (False, "not_measured", 2),
    ]
    assert [each.promoted for each in await office.ready()] == [True, False, False]


async def test_what_is_measured_beside_a_run_is_of_its_own_company(office: Office) -> None:
    given: list[Path | None] = []

    async def looks(spec, on_report) -> Broken:
        given.append(spec.served)
        return await declines(spec, on_report)

    await office.append(office.request("first", settings=SHORT))
    await office.until(office.trainer(), ended("first"))
    (ready,) = of(await office.said("adapter-ready"), AdapterReady)
    stolen = structs.replace(ready, id="s", company="globex", adapter="globex/default", correlation="s")
    decided = RolloutDecided(
        id="d", company="globex", time=2, correlation="d", adapter="globex/default", adapter_version=1, percent=100
    )
    await office.append(stolen, decided, office.request("next", company="globex"))
    await office.until(office.trainer(name="two", train=looks), ended("next"))
    assert given == [None]
