"""A broker that has forgotten a transactional id gives whoever names an epoch of it a fresh producer id."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from rillfold.embedded import kafka, ports
from rillfold.embedded.jars import resolve
from rillfold.settings import from_env
from streams.errors import OwnershipLost
from streams.log.kafka.access import KafkaAccess
from streams.log.kafka.log import KafkaLog
from streams.log.port import TopicSpec, records_in
from streams.owner.epochs import RENEW_SECONDS
from streams.owner.fence import FencedChangelogs
from streams.state.changelog import CLAIM

FORGETS = {
    "transactional.id.expiration.ms": "2000",
    "transaction.remove.expired.transaction.cleanup.interval.ms": "500",
}
FORGOTTEN_SECONDS = 8
A = "companies-changelog"


class Hours:
    now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def forgetful() -> Iterator[str]:
    """A broker that forgets in seconds what another forgets in days."""
    settings = from_env()
    jars = resolve("kafka", settings.cache_dir, repository=settings.maven_repository)
    port = ports.free_port()
    both = port, ports.free_port(port)
    with TemporaryDirectory(prefix="rillfold-forgetful-") as name:
        folder = Path(name)
        given = kafka._here(folder / "kafka", *both) | kafka.BROKER | FORGETS
        child = kafka.launch(folder / "kafka", folder, jars, given)
        try:
            child.wait_until(kafka.started)
            yield f"{ports.HOST}:{port}"
        finally:
            child.stop()


@pytest.fixture
async def two(forgetful: str) -> AsyncIterator[tuple[FencedChangelogs, FencedChangelogs, Hours]]:
    hours, access = Hours(), KafkaAccess(forgetful)
    sleeper, successor = (FencedChangelogs(name, access, hours) for name in ("sleeper", "successor"))
    yield sleeper, successor, hours
    await sleeper.stop()
    await successor.stop()


async def test_a_sleeper_whose_partition_the_broker_has_forgotten_altogether_is_refused(
    forgetful: str, two: tuple[FencedChangelogs, FencedChangelogs, Hours]
) -> None:
    sleeper, successor, hours = two
    async with KafkaLog(forgetful) as log:
        await log.create([TopicSpec(A, 1)])
        await sleeper.claim({0: [A]})
        await successor.claim({0: [A]})
        await successor.append(A, 0, [(b"k", b"by the successor")])
        await asyncio.sleep(FORGOTTEN_SECONDS)
        hours.now += RENEW_SECONDS
        for late in (sleeper, successor):
            with pytest.raises(OwnershipLost):
                await late.append(A, 0, [(b"k", b"late")])
        assert [r.value async for r in records_in(log, A, 0, 0) if r.key != CLAIM] == [b"by the successor"]
        await successor.claim({0: [A]})
        await successor.append(A, 0, [(b"k", b"claimed anew")])
