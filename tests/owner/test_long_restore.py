"""A restore takes as long as it takes: the group does not give its partitions away meanwhile."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from projections.companies import COMPANIES
from rillfold.embedded.state import Endpoints
from schemas.topics import TopicNames
from streams.log.kafka.log import KafkaLog
from streams.log.port import records_in
from streams.state.changelog import CLAIM, topic_of
from tests.support.folding import Agree, Make, Produce
from tests.support.worker import WorkerProcess, external

ROOT = Path(__file__).parents[2]


async def test_a_restore_that_is_longer_than_a_consumer_may_be_idle_loses_no_partition(
    stack: Endpoints,
    kafka: KafkaLog,
    names: TopicNames,
    tmp_path: Path,
    started: list[WorkerProcess],
    produce: Produce,
    some_events: Make,
    agree: Agree,
) -> None:
    """Each partition is claimed once: who has left a group claims anew when it is back."""
    await produce(some_events(300, 1))
    environment = external(stack.bootstrap_servers, names.prefix, tmp_path / "a") | {"PYTHONPATH": str(ROOT)}
    worker = WorkerProcess("a", ("a",), environment, tmp_path / "logs", "tests.support.slow_restore")
    started.append(worker)
    try:
        worker.start()
        await agree([COMPANIES])
        changelog, claims = topic_of(COMPANIES, names.prefix), Counter[int]()
        for n, end in (await kafka.ends(changelog)).items():
            claims[n] = len([r async for r in records_in(kafka, changelog, n, 0, end) if r.key == CLAIM])
        assert claims == dict.fromkeys(range(4), 1), worker.said()
    finally:
        worker.close()
