"""Every company's tools as the log says now: what a job is offered, and what the bridge may call."""

import asyncio
from collections import Counter
from collections.abc import Callable, Iterable, Mapping

from schemas.codec.codec import decode
from schemas.company import ToolRegistered, ToolRevoked
from schemas.topics import TOPIC_OF, TopicNames
from streams.bridge.look import Look
from streams.errors import ToolsBehind, TooManyTools
from streams.fairness.slices import unheard
from streams.log.port import EventLog, Record
from streams.log.tail import Tail

# Of one company: no job could carry more than these as its snapshot.
TOOLS, TOOLS_BYTES = 1_000, 250_000
BESIDES = 150


class Tools:
    """A follower of company-data that keeps tools alone. `catch_up` first: then everything acknowledged is seen."""

    def __init__(self, log: EventLog, names: TopicNames, beat: Callable[[], None] = unheard) -> None:
        self._of: dict[str, dict[str, tuple[ToolRegistered, str]]] = {}
        self._bytes: Counter[str] = Counter()
        self._tail = Tail(log, names.wire(TOPIC_OF[ToolRegistered].name), self._take, beat)
        self._reading: asyncio.Task[None] | None = None
        self._look = Look(ToolRegistered, ToolRevoked)

    async def catch_up(self) -> None:
        await self._tail.catch_up()

    async def catch_up_within(self, seconds: float) -> None:
        """`ToolsBehind` where it takes longer. The reading goes on, for whoever asks again."""
        try:
            async with asyncio.timeout(seconds):
                while self._reading and not self._reading.done():
                    # It may have begun before what was acknowledged since.
                    await asyncio.wait({self._reading})
                self._reading = asyncio.create_task(self.catch_up())
                await asyncio.shield(self._reading)
        except TimeoutError as error:
            raise ToolsBehind(seconds) from error

    async def close(self) -> None:
        if self._reading:
            self._reading.cancel()
            await asyncio.gather(self._reading, return_exceptions=True)

    def of(self, company: str) -> Mapping[str, tuple[ToolRegistered, str]]:
        """Name to tool and the place in the log where it was registered."""
        return self._of.get(company, {})

    def find(self, company: str, name: str) -> ToolRegistered | None:
        known = self._of.get(company, {}).get(name)
        return known[0] if known else None

    def offered(self, company: str) -> Iterable[tuple[ToolRegistered, str]]:
        return self.of(company).values()

    def check_room(self, company: str, sizes: Mapping[str, int]) -> None:
        """Raises `TooManyTools` where these, by name, would not be taken beside what is there."""
        after = {name: _size(tool) for name, (tool, _) in self.of(company).items()} | dict(sizes)
        if len(after) > TOOLS or sum(after.values()) > TOOLS_BYTES:
            raise TooManyTools(company, len(after), sum(after.values()), TOOLS, TOOLS_BYTES)

    def _keep(self, tool: ToolRegistered, place: str) -> None:
        """What one company registers past the API cannot fill the memory of those who follow: the rest is not taken."""
        self._drop(tool.company, tool.name)
        mine = self._of.setdefault(tool.company, {})
        if len(mine) < TOOLS and self._bytes[tool.company] + _size(tool) <= TOOLS_BYTES:
            mine[tool.name] = (tool, place)
            self._bytes[tool.company] += _size(tool)

    def _drop(self, company: str, name: str) -> None:
        if known := self._of.get(company, {}).pop(name, None):
            self._bytes[company] -= _size(known[0])

    def _take(self, record: Record) -> None:
        if not self._look.may_be(record.value):
            # Most of company-data is text to learn from: it is not decoded here.
            return
        match decode(record.value, record.origin, record.timestamp, record.headers):
            case ToolRegistered() as tool:
                self._keep(tool, str(record.origin))
            case ToolRevoked() as gone:
                self._drop(gone.company, gone.name)


def offer_size(name: str, description: str, parameters: str, endpoint: str) -> int:
    """About what a tool takes in a snapshot."""
    return len(f"{name}{description}{parameters}{endpoint}".encode()) + BESIDES


def _size(tool: ToolRegistered) -> int:
    return offer_size(tool.name, tool.description, tool.parameters, tool.endpoint)
