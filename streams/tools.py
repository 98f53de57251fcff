"""Every company's tools as the log says now: what a job is offered, and what the bridge may call."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from schemas.catalog import SINGLE_OBJECT, catalog
from schemas.codec import decode
from schemas.company import ToolRegistered, ToolRevoked
from schemas.topics import TOPIC_OF, TopicNames
from streams.log import EventLog, Record
from streams.tail import Tail


class Tools:
    """A follower of company-data that keeps tools alone. `catch_up` first: then everything acknowledged is seen."""

    def __init__(self, log: EventLog, names: TopicNames) -> None:
        self._of: dict[str, dict[str, tuple[ToolRegistered, str]]] = {}
        self._tail = Tail(log, names.wire(TOPIC_OF[ToolRegistered].name), self._take)
        self._prints = frozenset(
            entry.fingerprint
            for entry in catalog().by_fingerprint.values()
            if entry.cls in (ToolRegistered, ToolRevoked)
        )

    async def catch_up(self) -> None:
        await self._tail.catch_up()

    def of(self, company: str) -> Mapping[str, tuple[ToolRegistered, str]]:
        """Name to tool and the place in the log where it was registered."""
        return self._of.get(company, {})

    def offered(self, company: str) -> Iterable[tuple[ToolRegistered, str]]:
        return self.of(company).values()

    def _take(self, record: Record) -> None:
        value = record.value or b""
        if value[:2] == SINGLE_OBJECT and value[2:10] not in self._prints:
            # Most of company-data is text to learn from: it is not decoded here.
            return
        match decode(record.value, record.origin, record.timestamp, record.headers):
            case ToolRegistered() as tool:
                self._of.setdefault(tool.company, {})[tool.name] = (tool, str(record.origin))
            case ToolRevoked() as gone:
                self._of.get(gone.company, {}).pop(gone.name, None)
