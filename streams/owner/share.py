"""The least share of a member of the group.

Faust leaves everybody what he has up to the share rounded up: of four partitions two members keep two each, and a third
that comes later has none for as long as they live.
"""

from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import NamedTuple

from faust.assignor.client_assignment import ClientAssignment


class Move(NamedTuple):
    partition: int
    giver: str
    taker: str


def moves(held: Mapping[str, Collection[int]], copies: Mapping[str, Collection[int]]) -> Iterator[Move]:
    """Until each member has the share rounded down, from whoever has most; first what the taker has a copy of.

    Nobody else's partition moves: what moves is restored first.
    """
    having = {member: set(partitions) for member, partitions in sorted(held.items())}
    least = sum(map(len, having.values())) // len(having)
    for taker, own in having.items():
        while len(own) < least:
            giver = max(having, key=lambda member: len(having[member]))
            partition = min(having[giver], key=lambda each: (each not in copies[taker], each))
            having[giver].remove(partition)
            own.add(partition)
            yield Move(partition, giver, taker)


def level(members: Mapping[str, ClientAssignment], topics: Sequence[str]) -> None:
    """All of these topics have their partitions in the same hands. Who gives one away keeps it as a copy, where the
    taker had one."""
    held = {name: each.actives[topics[0]] for name, each in members.items()}
    copies = {name: each.standbys[topics[0]] for name, each in members.items()}
    for partition, giver, taker in list(moves(held, copies)):
        for topic in topics:
            members[giver].actives[topic].remove(partition)
            members[taker].actives[topic].append(partition)
            if partition in members[taker].standbys[topic]:
                members[taker].standbys[topic].remove(partition)
                members[giver].standbys[topic].append(partition)
