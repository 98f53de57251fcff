"""The epoch under which each changelog partition is written: asked of the broker, and asked again before it forgets.

A transactional id per changelog partition is used for nothing but this. What of aiokafka's insides is relied on stands
in `tests/support/relied_on.py`.
"""

import asyncio
import time
from collections.abc import Callable
from typing import Any, NamedTuple, Self

from aiokafka import AIOKafkaProducer, TopicPartition
from aiokafka import errors as kafka
from aiokafka.client import ConnectionGroup, CoordinationType
from aiokafka.producer.transaction_manager import PidAndEpoch, TransactionManager
from aiokafka.protocol.api import Request, RequestStruct, Response
from aiokafka.protocol.types import CompactString, Int16, Int32, Int64, Schema, TaggedFields

RENEW_SECONDS = 6 * 3600.0
"""An epoch that was asked for longer ago is asked for again before it is used. The broker forgets a partition's writer
after one day without a write, and a transactional id after seven."""
ID_TIMEOUT_MS = 10_000
RETRY_SECONDS = 0.05
NOBODY = PidAndEpoch(-1, -1)
_NOT_YET = (
    kafka.CoordinatorNotAvailableError,
    kafka.NotCoordinatorError,
    kafka.CoordinatorLoadInProgressError,
    kafka.ConcurrentTransactions,
    kafka.RequestTimedOutError,
    kafka.NodeNotReadyError,
    kafka.KafkaConnectionError,
)


def seconds_passed() -> float:
    """Also while the machine was asleep, which its monotonic clock does not see."""
    return max(time.monotonic(), time.clock_gettime(getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)))


class _Answer(Response):  # type: ignore[misc]
    API_KEY = 22
    API_VERSION = 3
    SCHEMA = Schema(
        ("throttle_time_ms", Int32),
        ("error_code", Int16),
        ("producer_id", Int64),
        ("producer_epoch", Int16),
        ("tags", TaggedFields),
    )


class _Question(RequestStruct):  # type: ignore[misc]
    API_KEY = 22
    API_VERSION = 3
    FLEXIBLE_VERSION = True
    RESPONSE_TYPE = _Answer
    SCHEMA = Schema(
        ("transactional_id", CompactString("utf-8")),
        ("transaction_timeout_ms", Int32),
        ("producer_id", Int64),
        ("producer_epoch", Int16),
        ("tags", TaggedFields),
    )


class NextEpoch(Request[_Question]):  # type: ignore[misc]
    """InitProducerId with the epoch that we think ours (KIP-360): the broker refuses where it is not the newest.

    aiokafka knows only the first version, which always gets a new one.
    """

    API_KEY = 22

    def __init__(self, transactional_id: str, known: PidAndEpoch = NOBODY) -> None:
        self._id, self._known = transactional_id, known

    def build(self, request_struct_class: type[_Question]) -> _Question:
        return request_struct_class(self._id, ID_TIMEOUT_MS, *self._known, {})


class KnownEpoch(NamedTuple):
    epoch: PidAndEpoch
    at: float


class Epochs(TransactionManager):  # type: ignore[misc]
    """In the place of a producer's own: it has one epoch for each partition. aiokafka asks for a batch's sequence, id
    and epoch in one go, in this order."""

    def __init__(self, producer: AIOKafkaProducer, clock: Callable[[], float]) -> None:
        super().__init__(None, ID_TIMEOUT_MS)
        self._client, self._clock = producer.client, clock
        self._known: dict[TopicPartition, KnownEpoch] = {}

    @classmethod
    def of(cls, producer: AIOKafkaProducer, clock: Callable[[], float]) -> Self:
        """From now on this started producer writes each partition under the epoch that was taken for it."""
        epochs, own = cls(producer, clock), producer._txn_manager
        epochs.set_pid_and_epoch(own.producer_id, own.producer_epoch)
        producer._txn_manager = producer._sender._txn_manager = producer._message_accumulator._txn_manager = epochs
        return epochs

    def sequence_number(self, tp: TopicPartition) -> int:
        self._pid_and_epoch = self._known[tp].epoch
        return int(super().sequence_number(tp))

    async def take(self, topic: str, partition: int) -> None:
        """Every earlier epoch is over, whoever had it."""
        await self._ask(TopicPartition(topic, partition), NOBODY)

    async def hold(self, topic: str, partition: int) -> None:
        """Raises `ProducerFenced` where an epoch of long ago is not the newest any more, or is forgotten."""
        tp = TopicPartition(topic, partition)
        epoch, at = self._known[tp]
        if self._clock() - at < RENEW_SECONDS:
            return
        try:
            await self._ask(tp, epoch)
        except (kafka.InvalidProducerEpoch, kafka.InvalidProducerIdMapping) as error:
            raise kafka.ProducerFenced from error
        if self._known[tp].epoch.pid != epoch.pid:
            # A broker that has forgotten the id takes any epoch for its first, also one that a successor has ended.
            self._known[tp] = KnownEpoch(epoch, at)
            raise kafka.ProducerFenced

    async def _ask(self, tp: TopicPartition, known: PidAndEpoch) -> None:
        request = NextEpoch(f"{tp.topic}-{tp.partition}", known)
        while True:
            at = self._clock()
            try:
                answer = await self._answer(request)
            except _NOT_YET:
                await self._client.force_metadata_update()
                await asyncio.sleep(RETRY_SECONDS)
                continue
            self._known[tp] = KnownEpoch(PidAndEpoch(answer.producer_id, answer.producer_epoch), at)
            self._sequence_numbers[tp] = 0
            return

    async def _answer(self, request: NextEpoch) -> Any:
        try:
            node = await self._client.coordinator_lookup(CoordinationType.TRANSACTION, request._id)
            answer = await self._client.send(node, request, group=ConnectionGroup.COORDINATION)
            error = kafka.for_code(answer.error_code)
            if error is not kafka.NoError:
                raise error
        except kafka.TransactionalIdAuthorizationFailed as error:
            raise kafka.TransactionalIdAuthorizationFailed(request._id) from error
        return answer
