"""Calls between their record and their answer: which offsets they hold, and how many a company may have."""

import asyncio
from collections import OrderedDict
from collections.abc import Callable, Collection, Coroutine, Mapping, Sequence
from typing import Any, NamedTuple

from processors.gate import ARGUMENT_CHARS
from schemas.tools import ToolCallProposed
from streams.bridge.endpoint import ToolReply
from streams.fairness.shares import Shares
from streams.log.floors import Floors
from streams.log.port import Record, TopicPartition

# Calls that are begun, with all that a call takes. What a company has beyond its bound waits, as a record; when all
# have filled theirs, so does what is beyond an even share.
COMPANY_BEGUN, ALL_BEGUN = 1_024, 4_096
# Bytes of what waits. The log is polled all the time: what is beyond ends as busy, by the same rule.
COMPANY_BYTES, ALL_BYTES = 64 << 20, 256 << 20
# What a call that waits takes beside its record.
BESIDES = 1_000

Key = tuple[str, str]


class HeldCall(NamedTuple):
    """And the offset that must not be committed before its answer is in the log."""

    place: TopicPartition
    offset: int
    call: ToolCallProposed
    size: int

    @property
    def key(self) -> Key:
        return self.call.company, self.call.call


class BegunCall(NamedTuple):
    """A call that is begun."""

    held: HeldCall
    task: asyncio.Task[ToolReply]

    @property
    def call(self) -> ToolCallProposed:
        return self.held.call

    @property
    def key(self) -> Key:
        return self.held.key


class OpenCalls:
    """`answer` makes a call; `woken` is set whenever one has ended."""

    def __init__(self, answer: Callable[[ToolCallProposed], Coroutine[Any, Any, ToolReply]]) -> None:
        self._answer = answer
        self._works: dict[Key, BegunCall] = {}
        self._begun = Shares(COMPANY_BEGUN, ALL_BEGUN)
        self._lines: OrderedDict[str, OrderedDict[Key, HeldCall]] = OrderedDict()
        """Who waits, a line a company; the company whose turn is longest ago stands first."""
        self._bytes = Shares(COMPANY_BYTES, ALL_BYTES)
        self._floors = Floors()
        self._ended: list[BegunCall] = []
        self.woken = asyncio.Event()

    def __len__(self) -> int:
        return len(self._works) + sum(map(len, self._lines.values()))

    def __contains__(self, key: Key) -> bool:
        return key in self._works or key in self._lines.get(key[0], ())

    def add(self, record: Record, call: ToolCallProposed) -> None:
        """Begun at once, or when it is its turn."""
        size = len(record.value or b"") + BESIDES
        held = HeldCall((record.topic, record.partition), record.offset, call, size)
        self._floors.hold(held.place, held.offset)
        if turned_away := self._turned_away(held):
            self._begin(held, _said(turned_away))
            return
        if call.company not in self._lines and self._begun.room(call.company):
            self._begin(held, self._answer(call))
            return
        self._lines.setdefault(call.company, OrderedDict())[held.key] = held
        self._bytes.take(call.company, size)

    def _turned_away(self, held: HeldCall) -> ToolReply | None:
        """What would fill the memory of all is not kept waiting."""
        company, characters = held.call.company, len(held.call.arguments)
        if characters > ARGUMENT_CHARS:
            return ToolReply(False, None, "", f"denied: arguments_too_large: {characters} characters")
        if self._bytes.room(company, held.size):
            return None
        return ToolReply(
            False, None, "", f"busy: {len(self._lines.get(company, ()))} calls of this company wait already"
        )

    def move_on(self) -> None:
        """Whoever waits is begun where there is room by now; companies take turns."""
        for company in list(self._lines):
            while company in self._lines and self._begun.room(company):
                self._lines.move_to_end(company)
                held = next(iter(self._lines[company].values()))
                self._leave_line(held)
                self._begin(held, self._answer(held.call))

    def _leave_line(self, held: HeldCall) -> None:
        company = held.call.company
        del self._lines[company][held.key]
        self._bytes.leave(company, held.size)
        if not self._lines[company]:
            del self._lines[company]

    def _begin(self, held: HeldCall, answer: Coroutine[Any, Any, ToolReply]) -> None:
        work = BegunCall(held, asyncio.create_task(answer))
        self._works[work.key] = work
        self._begun.take(work.call.company)
        work.task.add_done_callback(lambda _: self._end(work))

    def _end(self, work: BegunCall) -> None:
        self._ended.append(work)
        self.woken.set()

    def ended(self) -> Sequence[BegunCall]:
        """Each once; those that were let go meanwhile are left out."""
        ended, self._ended = self._ended, []
        return [work for work in ended if self._works.get(work.key) is work]

    def close(self, work: BegunCall) -> None:
        """Its answer is in the log."""
        del self._works[work.key]
        self._floors.release(work.held.place, work.held.offset)
        self._begun.leave(work.call.company)

    def floor(self, following: Mapping[TopicPartition, int]) -> dict[TopicPartition, int]:
        """What may be committed of each partition: no more than the first open call."""
        return {place: self._floors.of(place, offset) for place, offset in following.items()}

    async def keep_only(
        self, ours: Collection[TopicPartition], answered: Callable[[Key], bool] = lambda _: False
    ) -> None:
        """What belongs to another member is that member's to make, under the same key; what is answered is done."""

        def gone(held: HeldCall) -> bool:
            return held.place not in ours or answered(held.key)

        for held in [held for line in self._lines.values() for held in line.values() if gone(held)]:
            self._floors.release(held.place, held.offset)
            self._leave_line(held)
        works = [work for work in self._works.values() if gone(work.held)]
        for work in works:
            self.close(work)
        await cancelled([work.task for work in works])

    async def wait(self, seconds: float) -> None:
        """Until all that is begun has ended, or so long."""
        if self._works:
            await asyncio.wait([work.task for work in self._works.values()], timeout=seconds)
            await asyncio.sleep(0)


async def _said(reply: ToolReply) -> ToolReply:
    return reply


async def cancelled(tasks: Sequence[asyncio.Task[Any]]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
