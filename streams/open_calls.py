"""Calls between their record and their answer: which offsets they hold, and how many a company may have."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Collection, Container, Coroutine, Mapping, Sequence
from typing import Any, NamedTuple

from processors.gate import ARGUMENT_CHARS
from schemas.tools import ToolCallProposed
from streams.endpoint import Reply
from streams.log import Record, TopicPartition

# Calls that wait or are under way. The log is polled all the time, so what one company has beyond its bound ends as
# busy; when all have filled theirs, so does what is beyond an even share.
COMPANY_OPEN, ALL_OPEN = 1_024, 4_096

Key = tuple[str, str]


class Work(NamedTuple):
    """A call, and the offset that must not be committed before its answer is in the log."""

    place: TopicPartition
    offset: int
    call: ToolCallProposed
    task: asyncio.Task[Reply]

    @property
    def key(self) -> Key:
        return self.call.company, self.call.call


class OpenCalls:
    """`answer` makes a call; `woken` is set whenever one has ended."""

    def __init__(self, answer: Callable[[ToolCallProposed], Coroutine[Any, Any, Reply]]) -> None:
        self._answer = answer
        self._works: dict[Key, Work] = {}
        self._of: Counter[str] = Counter()
        self._ended: list[Work] = []
        self.woken = asyncio.Event()

    def __len__(self) -> int:
        return len(self._works)

    def __contains__(self, key: Key) -> bool:
        return key in self._works

    def begin(self, record: Record, call: ToolCallProposed) -> None:
        turned_away = self._turned_away(call)
        task = asyncio.create_task(_said(turned_away) if turned_away else self._answer(call))
        work = Work((record.topic, record.partition), record.offset, call, task)
        self._works[work.key] = work
        self._of[call.company] += 1
        task.add_done_callback(lambda _: self._end(work))

    def _turned_away(self, call: ToolCallProposed) -> Reply | None:
        """What would fill the memory of all is not kept waiting."""
        if len(call.arguments) > ARGUMENT_CHARS:
            return Reply(False, None, "", f"denied: arguments_too_large: {len(call.arguments)} characters")
        mine = self._of[call.company]
        full = len(self._works) >= ALL_OPEN and mine >= ALL_OPEN // len(self._of)
        if full or mine >= COMPANY_OPEN:
            return Reply(False, None, "", f"busy: {mine} calls of this company wait already")
        return None

    def _end(self, work: Work) -> None:
        self._ended.append(work)
        self.woken.set()

    def ended(self) -> Sequence[Work]:
        """Each once; those that were let go meanwhile are left out."""
        ended, self._ended = self._ended, []
        return [work for work in ended if self._works.get(work.key) is work]

    def close(self, work: Work) -> None:
        """Its answer is in the log."""
        del self._works[work.key]
        self._of[work.call.company] -= 1
        if not self._of[work.call.company]:
            del self._of[work.call.company]

    def floor(self, following: Mapping[TopicPartition, int]) -> dict[TopicPartition, int]:
        """What may be committed of each partition: no more than the first open call."""
        floor = dict(following)
        for work in self._works.values():
            if work.place in floor:
                floor[work.place] = min(floor[work.place], work.offset)
        return floor

    async def keep_only(self, ours: Collection[TopicPartition], answered: Container[Key] = ()) -> None:
        """What belongs to another member is that member's to make, under the same key; what is answered is done."""
        gone = [work for work in self._works.values() if work.place not in ours or work.key in answered]
        for work in gone:
            self.close(work)
        await cancelled([work.task for work in gone])

    async def wait(self, seconds: float) -> None:
        """Until all have ended, or so long."""
        if self._works:
            await asyncio.wait([work.task for work in self._works.values()], timeout=seconds)
            await asyncio.sleep(0)


async def _said(reply: Reply) -> Reply:
    return reply


async def cancelled(tasks: Sequence[asyncio.Task[Any]]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
