"""A worker that falls asleep in the middle of a commit, and wakes up when its partitions are another's."""

from __future__ import annotations

import asyncio
import signal
import sys
from pathlib import Path

import pytest

from projections.digest import digest
from projections.projection import Projection
from rillfold.embedded.stack import Endpoints
from schemas.topics import TOPICS, TopicNames
from streams.history.refold import held, refold
from streams.log.kafka.log import KafkaLog
from streams.log.port import TopicSpec
from streams.state.changelog import topic_of
from tests.kill.releases import ALL
from tests.kill.senders import Sender
from tests.kill.traffic import Traffic
from tests.kill.world import Hand, History, until
from tests.support.worker import asleep

EVENTS = 4_000


@pytest.fixture
def hand(stack: Endpoints, names: TopicNames, tmp_path: Path):
    (tmp_path / "logs").mkdir()
    made: list[Hand] = []

    def make(name: str) -> Hand:
        environment = {
            "RILLFOLD_PROVIDER": "external",
            "RILLFOLD_BOOTSTRAP_SERVERS": stack.bootstrap_servers,
            "RILLFOLD_TOPIC_PREFIX": names.prefix,
            "RILLFOLD_SESSION_TIMEOUT": "3",
        }
        made.append(Hand(name, ("worker", "fold", "--name", name), tmp_path, environment))
        return made[-1]

    yield make
    for each in made:
        each.stop()


@pytest.mark.parametrize("step", ["published", "appended"])
async def test_what_a_sleeper_still_wants_to_write_is_refused(
    step: str, hand, stack: Endpoints, names: TopicNames, tmp_path: Path
):
    """`published`: its rows are not in the changelog yet, and must never be. `appended`: they are, and count once."""
    async with KafkaLog(stack.bootstrap_servers) as log:
        await log.create([TopicSpec(names.wire(topic.name), topic.partitions) for topic in TOPICS])
        sender = Sender(log, stack.bootstrap_servers, Traffic(7, EVENTS, names), EVENTS, History(tmp_path / "history"))
        sender.allowed = 1.0
        sleeper, successor = hand("sleeper"), hand("successor")
        sleeper.start(failpoint=f"{step}:9:SIGSTOP")
        await asyncio.gather(sender.run(), asyncio.to_thread(until, "sleep", 60, lambda: asleep(sleeper)))
        await sender.close()
        successor.start()
        await folded(log, names)
        sleeper.send(signal.SIGCONT)
        code = await asyncio.to_thread(sleeper.ended, 60)
        refused = "Another worker has claimed" in sleeper.log()
        sys.stdout.write(f"asleep at {step}: late batch refused: {refused}, exit {code}\n")
        assert (refused, code) == (True, 70)
        await folded(log, names)


async def folded(log: KafkaLog, names: TopicNames) -> None:
    """Every row in every changelog is that of a fresh fold of all that is in the log."""
    for projection in ALL:
        async with asyncio.timeout(120):
            while not await _caught_up(log, projection, names):  # noqa: ASYNC110 - the broker tells nobody
                await asyncio.sleep(0.2)
        parts = await held(log, projection, topic_of(projection, names.prefix))
        fresh = {n: (await refold(log, projection, names, n, part)).rows for n, part in parts.items()}
        assert digest({n: part.rows for n, part in parts.items()}) == digest(fresh), projection.name


async def _caught_up(log: KafkaLog, projection: Projection, names: TopicNames) -> bool:
    parts = await held(log, projection, topic_of(projection, names.prefix))
    ends = {names.wire(topic): await log.ends(names.wire(topic)) for topic in projection.topics}
    return all(part.markers.get(topic, 0) >= ends[topic][n] for n, part in parts.items() for topic in ends)
