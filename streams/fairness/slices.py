"""The loop is everybody's: whoever goes through many records gives it up every few milliseconds."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from typing import TypeVar

Each = TypeVar("Each")
SLICE_SECONDS = 0.005


def unheard() -> None:
    """A beat that nobody waits for."""


class Slices:
    """`over` after each record; then `give_up`, which lets the others run and says that this one gets on."""

    def __init__(self, beat: Callable[[], None] = unheard) -> None:
        self._beat, self._until = beat, time.monotonic() + SLICE_SECONDS

    def over(self) -> bool:
        return time.monotonic() >= self._until

    async def give_up(self) -> None:
        self._beat()
        await asyncio.sleep(0)
        self._until = time.monotonic() + SLICE_SECONDS


async def in_turns(many: AsyncIterator[Each], slices: Slices) -> AsyncIterator[Each]:
    """The same, while others have theirs."""
    async for each in many:
        yield each
        if slices.over():
            await slices.give_up()
