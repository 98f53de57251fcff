"""Two groups that fold one projection: who sleeps meanwhile writes nothing late, and they do not fence in turns."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from faust.types import TP

from projections.catalog import PROJECTIONS
from projections.companies import COMPANIES
from projections.datasets import DATASETS
from projections.projection import OTHER_GROUPS
from rillfold.embedded.state import Endpoints
from rillfold.processes import WORKERS
from schemas.topics import TopicNames
from streams.errors import FoldedElsewhere
from streams.log.kafka.access import KafkaAccess
from streams.log.memory import MemoryLog
from streams.owner.app import Worker, create_app
from streams.owner.rivals import Rivals, group_of
from streams.state.changelog import topic_of
from tests.owner.test_claimed_anew import Unfenced
from tests.support.folding import Agree, Make, Produce
from tests.support.waiting import until
from tests.support.worker import WorkerProcess, asleep, external


@pytest.fixture
def both(
    stack: Endpoints, names: TopicNames, tmp_path: Path, started: list[WorkerProcess]
) -> Iterator[tuple[WorkerProcess, WorkerProcess]]:
    """One folds companies and datasets, the other datasets."""
    for name, only in (("one", (COMPANIES, DATASETS)), ("other", (DATASETS,))):
        options = [option for each in only for option in ("--only", each.name)]
        environment = external(stack.bootstrap_servers, names.prefix, tmp_path / name, SESSION_TIMEOUT="3")
        command = ("worker", "fold", "--name", name, *options)
        started.append(WorkerProcess(name, command, environment, tmp_path / "logs"))
    yield started[0], started[1]
    for each in started:
        each.close()


async def test_who_slept_while_another_group_took_its_changelog_over_writes_nothing_there_and_stays_away(
    both: tuple[WorkerProcess, WorkerProcess],
    produce: Produce,
    some_events: Make,
    agree: Agree,
    names: TopicNames,
    stack: Endpoints,
) -> None:
    one, other = both
    scope = f"{names.prefix}rillfold"
    await produce(some_events(3000, 1))
    one.start(failpoint="published:3:SIGSTOP")
    await asyncio.to_thread(until, "sleep", lambda: asleep(one), 60)
    other.start()
    await agree([DATASETS])
    await produce(some_events(3000, 2))
    await agree([DATASETS])
    one.send(signal.SIGCONT)
    assert await asyncio.to_thread(one.ended) == 70
    assert "Another worker has claimed" in one.said()
    assert other.alive
    one.start()
    assert await asyncio.to_thread(one.ended) == 1
    assert f"Group {scope}-datasets is at work, and folds some of what" in one.said(), "it waits, and claims nothing"
    await produce(some_events(3000, 3))
    await agree([DATASETS])
    assert other.alive, "nobody has shut it out meanwhile"
    folds = [COMPANIES.name, DATASETS.name]
    again = Rivals(group_of(scope, folds), scope, folds, KafkaAccess(stack.bootstrap_servers))
    with pytest.raises(FoldedElsewhere, match=f"Group {scope}-datasets is at work"):
        await again.gone(patience=0)
    with pytest.raises(FoldedElsewhere):
        await again._replace(group=f"{scope}-datasets-next").yield_to_the_first()
    await Rivals(f"{scope}-companies", scope, [COMPANIES.name], KafkaAccess(stack.bootstrap_servers)).gone(patience=0)


class FakeFence(Unfenced):
    def __init__(self) -> None:
        self.asked = 0

    async def claim(self, topics: Mapping[int, Sequence[str]]) -> dict[tuple[str, int], int]:
        self.asked += 1
        return await super().claim(topics)


async def test_of_two_groups_that_began_at_one_moment_one_claims_nothing(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Neither had members when the other looked, before it joined: before its first claim each looks again."""
    there, changelog = ["t-rillfold-datasets"], TP(topic_of(DATASETS, "t-"), 0)

    async def at_work(_: Rivals) -> list[str]:
        return there

    monkeypatch.setattr(Rivals, "at_work", at_work)
    worker = Worker(KafkaAccess("nowhere:9092"), "t-rillfold-datasets-next", "w", tmp_path, TopicNames("t-"))
    owner = create_app(worker, MemoryLog(), [DATASETS]).shard_owner
    fence: Any = FakeFence()
    owner._fence = fence
    await owner.assigned([changelog])
    for _ in range(2):
        with pytest.raises(FoldedElsewhere, match="Group t-rillfold-datasets is at work"):
            await owner.claim([changelog])
    assert fence.asked == 0
    there.clear()
    await owner.claim([changelog])
    there.append("t-rillfold-datasets")
    await owner.claim([changelog])
    assert fence.asked == 2, "who has claimed is the first, whoever comes"
    await owner.stop()


def test_a_group_says_by_its_name_what_it_folds() -> None:
    ours = Rivals(group_of("t-rillfold", ["datasets", "costs"]), "t-rillfold", ["datasets", "costs"], KafkaAccess(""))
    assert all(map(ours.may_be, ["t-rillfold", "t-rillfold-datasets", "t-rillfold-companies-costs"]))
    others = [ours.group, "t-rillfold-companies", "t-rillfold-sink-rillfold", "u-rillfold-costs", "t-rillfoldcosts"]
    assert not any(map(ours.may_be, others))


def test_no_fold_of_some_projections_is_a_group_of_other_workers() -> None:
    """Whatever they are named: no projection has a name with which such a group goes on."""
    there = {each.group.split("-")[1] if each.group else name for name, each in WORKERS.items()}
    assert there - {"fold"} == OTHER_GROUPS
    assert not OTHER_GROUPS & PROJECTIONS.keys()
    ours = Rivals("t-rillfold", "t-rillfold", [*PROJECTIONS], KafkaAccess(""))
    others = ["react-datasets-costs-v1", "sink-datasets", "tool-bridge", "train", "serve"]
    assert not any(ours.may_be(f"t-rillfold-{each}") for each in others)
    assert ours.may_be("t-rillfold-datasets")
