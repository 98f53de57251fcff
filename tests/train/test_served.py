"""A run is measured against what answers for its role now, where that can be measured on its base."""

from __future__ import annotations

from pathlib import Path

import pytest
from msgspec import structs

from gpu_workers.train.lines import Broken
from schemas.adapters import AdapterReady, RolloutDecided
from schemas.topics import TopicNames
from streams.log.memory import MemoryLog

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
    (ready,) = of(await office.said("adapter-ready"), AdapterReady)
    decided = RolloutDecided(
        id="d", company="acme", time=2, correlation="d", adapter="acme/default", adapter_version=1, percent=100
    )
    await office.append(decided, office.request("next"), office.request("other", role="other"))
    await office.until(office.trainer(name="two", train=looks), ended("next", "other"))
    assert given == [(office.store.place(ready.sha256), 1), (None, None)]


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
