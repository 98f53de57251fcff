"""A partition is given to another member between the fetch that needs its first offset and the seek to it."""

from __future__ import annotations

from typing import Any

from aiokafka import TopicPartition
from aiokafka.errors import IllegalStateError, NoOffsetForPartitionError

from streams.log.kafka.access import KafkaAccess
from streams.log.kafka.group import Assignments, KafkaSubscription
from streams.log.memory import MemoryLog
from streams.log.port import nothing_to_learn


class TakenAway:
    """A consumer of aiokafka's in that moment: a fault that no broker produces when it is asked to."""

    def __init__(self) -> None:
        self.fetches = 0

    async def getmany(self, **_: Any) -> dict[Any, Any]:
        self.fetches += 1
        if self.fetches == 1:
            raise NoOffsetForPartitionError([TopicPartition("t", 0)])
        return {}

    async def seek_to_beginning(self, *_: Any) -> None:
        raise IllegalStateError("Partitions are not assigned")


async def test_a_member_goes_on_when_a_new_partition_is_taken_from_it_at_once() -> None:
    consumer: Any = TakenAway()
    given = Assignments(consumer), nothing_to_learn, KafkaAccess("nowhere:1")
    assert await KafkaSubscription(MemoryLog(), "g", consumer, *given).poll(1.0) == {}
    assert consumer.fetches == 2
