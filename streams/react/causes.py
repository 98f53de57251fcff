"""Which records are for a reaction: events of its kinds, and marks that say that a failure is to be tried again."""

import logging

from schemas.codec.codec import decode
from schemas.envelope import Event, Origin
from schemas.rejected import RecordRedriven, Rejected
from schemas.topics import BY_NAME, TopicNames
from streams.errors import MissingOffsets, UnknownTopic
from streams.fold.batch import Batch, NoEvent, decode_from
from streams.log.port import EventLog, Record, records_in
from streams.react.outcome import Cause
from streams.react.reaction import LETTERS, Reaction

log = logging.getLogger(__name__)


class Causes:
    """`alone`: no fold reads the topic, so that what is no event there has its letter from here."""

    def __init__(self, event_log: EventLog, names: TopicNames, reaction: Reaction, alone: bool) -> None:
        self._log, self._reaction, self._alone = event_log, reaction, alone
        self.source, self._letters = names.wire(reaction.topic), names.wire(LETTERS)
        self.topics = (self.source, self._letters)
        self._events = names.events_on(self.source)
        self._keeps_all = BY_NAME[reaction.topic].keeps_all

    def may_lack(self, gap: MissingOffsets) -> bool:
        """Its time was over, or a later record has its key: of such a topic nobody is promised all."""
        return gap.place[0] == self.source and not self._keeps_all and gap.start < gap.first

    async def of(self, record: Record) -> Cause | NoEvent | None:
        """None: it is not for this one."""
        if self._alone and record.topic == self.source:
            batch = Batch(record.topic, record.partition, record.offset, record.offset + 1, (record,))
            if refused := decode_from(batch, record.offset, self._events).refused:
                return refused[0]
        event = _event(record)
        if record.topic == self.source:
            return self._here(record, event)
        if isinstance(event, RecordRedriven) and self._names_a_failure(event):
            return await self._again(event)
        return None

    def _here(self, record: Record, event: Event | None) -> Cause | None:
        return Cause(record, event) if event is not None and type(event) in self._reaction.kinds else None

    def _names_a_failure(self, mark: RecordRedriven) -> bool:
        """The id of a letter of ours follows from the place that it names."""
        origin = Origin(mark.topic, mark.partition, mark.offset)
        return mark.topic == self.source and mark.causation == self._reaction.letter_id(origin)

    async def _again(self, mark: RecordRedriven) -> Cause | None:
        place, origin = (mark.topic, mark.partition), Origin(mark.topic, mark.partition, mark.offset)
        try:
            found = [each async for each in records_in(self._log, *place, mark.offset, mark.offset + 1)]
        except (MissingOffsets, UnknownTopic, KeyError, IndexError) as error:
            why = f"{mark.topic}/{mark.partition}/{mark.offset} is not in the log: {error}"
            log.warning("%s is not tried again: %s", self._reaction, why)
            return None
        return next((self._here(each, _event(each)) for each in found if each.origin == origin), None)


def _event(record: Record) -> Event | None:
    found = decode(record.value, record.origin, record.timestamp, record.headers)
    return None if isinstance(found, Rejected) else found
