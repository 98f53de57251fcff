"""Which calls have their answer in the log. tool-call and tool-result share key rule and partition numbers."""

from collections.abc import Callable, Mapping, Sequence

from schemas.codec.codec import decode
from schemas.tools import ToolReturned
from schemas.topics import TOPIC_OF, TopicNames
from streams.fairness.slices import unheard
from streams.log.port import EventLog, Position, Record, TopicPartition
from streams.log.tail import Tail

# A repeat of a call is known by its answer in the log, looked for this far back and among this many.
LOOK_BACK_MS = 3_600_000
REMEMBERED = 100_000


class AnsweredCalls:
    """When there is no more room, the company with the most answers loses its oldest: never another's."""

    def __init__(
        self, log: EventLog, names: TopicNames, remembered: int = REMEMBERED, beat: Callable[[], None] = unheard
    ) -> None:
        self._log = log
        self._topic = names.wire(TOPIC_OF[ToolReturned].name)
        self._tail = Tail(log, self._topic, self._take, beat)
        self._left = remembered
        self._known: dict[str, dict[str, None]] = {}
        """Company to its calls, in the order of their answers."""

    async def catch_up(self, batch: Mapping[TopicPartition, Sequence[Record]]) -> None:
        """A partition that is new to us is read from some time before its first call: our predecessor's answers.
        Those that are known already are read on, with or without calls."""
        new = {partition: records[0] for (_, partition), records in batch.items()}
        starts: dict[int, int] = {}
        for partition, first in new.items():
            if partition not in self._tail.positions:
                since = await self._log.offsets_at(self._topic, max(0, first.timestamp - LOOK_BACK_MS))
                starts[partition] = since[partition]
        await self._tail.catch_up(starts)

    def __contains__(self, key: tuple[str, str]) -> bool:
        """Company and call."""
        company, call = key
        return call in self._known.get(company, ())

    def said(self, key: tuple[str, str], position: Position) -> None:
        """Our own answer, and where it lies now."""
        if self._tail.known(position.partition, position.offset):
            self._remember(key)

    def _take(self, record: Record) -> None:
        event = decode(record.value, record.origin, record.timestamp, record.headers)
        if isinstance(event, ToolReturned):
            self._remember((event.company, event.call))

    def _remember(self, key: tuple[str, str]) -> None:
        if key in self:
            return
        company, call = key
        self._known.setdefault(company, {})[call] = None
        self._left -= 1
        if self._left < 0:
            self._forget()

    def _forget(self) -> None:
        company, calls = max(self._known.items(), key=lambda known: len(known[1]))
        del calls[next(iter(calls))]
        self._left += 1
        if not calls:
            del self._known[company]
