"""Who may write to a changelog partition: the newest claim, whoever made it, and for however long."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable

import pytest

from rillfold.embedded.state import Endpoints
from schemas.topics import TopicNames
from streams.errors import OwnershipLost
from streams.log.kafka.access import KafkaAccess
from streams.log.kafka.log import KafkaLog
from streams.log.port import TopicSpec, records_in
from streams.owner.epochs import RENEW_SECONDS
from streams.owner.fence import FencedChangelogs
from streams.state.changelog import CLAIM

A, B = "companies-changelog", "datasets-changelog"
Fence = Callable[[str], FencedChangelogs]


class Turned:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Turned:
    return Turned()


@pytest.fixture
async def fence(stack: Endpoints, clock: Turned) -> AsyncIterator[Fence]:
    made: list[FencedChangelogs] = []

    def make(owner: str) -> FencedChangelogs:
        made.append(FencedChangelogs(owner, KafkaAccess(stack.bootstrap_servers), clock))
        return made[-1]

    yield make
    for each in made:
        await each.stop()


@pytest.fixture
async def changelogs(kafka: KafkaLog, names: TopicNames) -> tuple[str, str]:
    topics = names.prefix + A, names.prefix + B
    await kafka.create([TopicSpec(topic, 1) for topic in topics])
    return topics


async def written(kafka: KafkaLog, topic: str) -> list[bytes | None]:
    return [record.value async for record in records_in(kafka, topic, 0, 0) if record.key != CLAIM]


async def test_one_that_owns_some_of_the_changelogs_shuts_out_who_owned_them_all_there_and_nowhere_else(
    fence: Fence, changelogs: tuple[str, str], kafka: KafkaLog
) -> None:
    a, b = changelogs
    every, only = fence("every"), fence("only")
    await every.claim({0: [a, b]})
    for topic in (a, b):
        await every.append(topic, 0, [(b"k", b"1"), (b"l", b"1")])
    await only.claim({0: [b]})
    await only.append(b, 0, [(b"k", b"2")])
    with pytest.raises(OwnershipLost):
        await every.append(b, 0, [(b"k", b"late")])
    await every.append(a, 0, [(b"k", b"3")])
    assert await written(kafka, b) == [b"1", b"1", b"2"]
    assert await written(kafka, a) == [b"1", b"1", b"3"]


async def test_a_claim_is_renewed_before_it_is_forgotten_and_its_owner_writes_on(
    fence: Fence, changelogs: tuple[str, str], clock: Turned, kafka: KafkaLog
) -> None:
    a, b = changelogs
    owner = fence("owner")
    await owner.claim({0: [a, b]})
    for n in range(3):
        await owner.append(a, 0, [(b"k", b"%d" % n)])
        clock.now += RENEW_SECONDS
    assert await written(kafka, a) == [b"0", b"1", b"2"]


async def test_a_sleeper_whom_the_partition_has_forgotten_is_refused_by_the_coordinator(
    fence: Fence, changelogs: tuple[str, str], clock: Turned, kafka: KafkaLog
) -> None:
    """The successor's claim is long gone from what the partition's leader remembers: here it was never written."""
    a, _ = changelogs
    sleeper, successor = fence("sleeper"), fence("successor")
    await sleeper.claim({0: [a]})
    await successor.claim({0: []})
    await successor._writers[0].epochs.take(a, 0)
    clock.now += RENEW_SECONDS
    with pytest.raises(OwnershipLost):
        await sleeper.append(a, 0, [(b"k", b"late")])
    assert await written(kafka, a) == []


async def test_what_is_handed_back_while_it_is_claimed_is_lost_by_name(
    fence: Fence, changelogs: tuple[str, str], kafka: KafkaLog
) -> None:
    a, _ = changelogs
    owner = fence("owner")
    await owner.claim({0: [a]})
    await owner.release([0])
    with pytest.raises(OwnershipLost, match=f"claimed {a}/0"):
        await owner.append(a, 0, [(b"k", b"late")])
    assert await written(kafka, a) == []
