"""All reactions of a process: each a member of its own group, so that none waits for another."""

import asyncio
from collections.abc import Callable, Collection, Iterable, Sequence

from schemas.topics import BY_NAME, TOPICS
from streams.health.watch import Counts, Phase, Sight
from streams.log.port import TopicPartition
from streams.react.reaction import Reaction
from streams.react.reactor import Reactor


def letter_writers(reactions: Iterable[Reaction], folded: Collection[str]) -> set[Reaction]:
    """Of each topic of an application that no fold reads, one: what is no event there has one letter. `folded`: names
    of topics as we call them."""
    first = dict[str, Reaction]()
    for each in sorted(reactions, key=str):
        first.setdefault(each.topic, each)
    return {each for topic, each in first.items() if topic not in folded and BY_NAME[topic] not in TOPICS}


async def run_all(reactors: Sequence[Reactor], ready: Callable[[], None]) -> None:
    """`ready` is called when each has its partitions. The first that ends ends all: only the world ends one."""
    joining = len(reactors)

    def joined() -> None:
        nonlocal joining
        joining -= 1
        if not joining:
            ready()

    running = [asyncio.create_task(reactor.run(joined)) for reactor in reactors]
    try:
        await asyncio.gather(*running)
    finally:
        for each in running:
            each.cancel()
        await asyncio.gather(*running, return_exceptions=True)


def sight_of(reactors: Sequence[Reactor]) -> Sight:
    """In each partition, where the one stands that has come least far."""
    sights = [reactor.standing.sight() for reactor in reactors]
    positions: dict[TopicPartition, int | None] = {}
    for sight in sights:
        for place, position in sight.positions.items():
            positions[place] = min(position or 0, positions.get(place, position) or 0)
    phase: Phase = "working" if all(sight.phase == "working" for sight in sights) else "joining"
    return Sight(phase, positions, sum(sight.beats for sight in sights))


def counts_of(reactors: Sequence[Reactor]) -> Counts:
    return {
        "reactions": ("Events that reactions came to their end over.", sum(each.ran for each in reactors)),
        "reactions_failed": ("Events that a reaction failed over.", sum(each.failed for each in reactors)),
        "reactions_expired": (
            "Offsets that expired before a reaction came to them.",
            sum(each.expired for each in reactors),
        ),
        "reactions_emitted": ("Events that reactions emitted.", sum(each.emitted for each in reactors)),
    }
