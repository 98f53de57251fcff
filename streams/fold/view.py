"""A projection folded in memory up to the log's end: for a worker that must know what was said before it speaks."""

import logging
from collections.abc import Callable, Collection, Mapping
from typing import Generic

from projections.projection import Projection, State
from schemas.codec.codec import decode
from schemas.envelope import Event, Origin
from schemas.rejected import Rejected
from schemas.topics import TopicNames
from streams.fairness.slices import unheard
from streams.log.port import EventLog, Record
from streams.log.tail import Tail
from streams.state.refusal import Untaken, blamed_on_events, check_key

log = logging.getLogger(__name__)


class View(Generic[State]):
    """Rows by key, as of the last `catch_up`; of all partitions, or of those that it was asked about."""

    def __init__(
        self, log: EventLog, names: TopicNames, projection: Projection[State], beat: Callable[[], None] = unheard
    ) -> None:
        (topic,) = projection.topics
        self._wire, self._log = names.wire(topic), log
        self._projection = projection
        self._tail = Tail(log, self._wire, self._take, beat)
        self.rows: dict[str, State] = {}
        """No row of what changed nothing: whoever may say a key would fill this memory with it."""
        self.at: Origin | None = None
        """Where the event stands that is folded now, or was last."""

    async def catch_up(self, partitions: Collection[int] | None = None) -> Mapping[str, State]:
        """Folds what was appended since the last time."""
        starts = await self._log.starts(self._wire)
        await self._tail.catch_up({p: starts[p] for p in (starts if partitions is None else partitions)})
        return self.rows

    def _take(self, record: Record) -> None:
        event = decode(record.value, record.origin, record.timestamp, record.headers)
        if isinstance(event, Rejected):
            return
        self.at = record.origin
        try:
            with blamed_on_events():
                self._fold(event)
        except Untaken as error:
            log.warning("%s does not take the event at %s (%s): left out", self._projection.name, record.origin, error)

    def _fold(self, event: Event) -> None:
        key = self._projection.key(event)
        if key is not None:
            check_key(key, event.company)
            before = self.rows.get(key) or self._projection.initial(key)
            after = self._projection.fold(before, event)
            if after is not before:
                self.rows[key] = after
