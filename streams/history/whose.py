"""Whose a record is, told by its key before anything of it is read."""

from collections.abc import Mapping

from schemas.codec.codec import decode
from schemas.envelope import Event, Origin
from schemas.rejected import Rejected
from schemas.topics import TopicNames
from streams.fold.old_ground import Letters
from streams.log.port import Record, TopicPartition


class Owner:
    """One company among all that write to a topic. Another's bytes are never decoded, nor counted."""

    def __init__(self, company: str, names: TopicNames, letters: Mapping[TopicPartition, Letters]) -> None:
        self._company, self._names, self._letters = company, names, letters
        self._whole = company.encode()
        self._start = self._whole + b"/"

    def may_own(self, record: Record) -> bool:
        """By its key: `company` or `company/...`. A record without one can be the company's only if it names it."""
        key = record.key
        if not key:
            return record.value is not None and self._whole in record.value
        return key == self._whole or key.startswith(self._start)

    def read(self, record: Record) -> Event | Rejected | None:
        """None: no key says whose it is, and it is not this company's event."""
        origin = Origin(self._names.ours(record.topic), record.partition, record.offset)
        event = decode(record.value, record.origin, record.timestamp, record.headers)
        ours = not isinstance(event, Rejected) and event.company == self._company
        letters = self._letters.get((record.topic, record.partition))
        told = letters is not None and letters.hold(record)
        if ours and not told and type(event) in self._names.events_on(record.topic):
            return event
        if not record.key:
            return None
        if isinstance(event, Rejected):
            return event
        if told:
            return Rejected("refused_before", "it was refused when it was new, and has a letter", origin)
        if not ours:
            return Rejected("wrong_company", f"the key is {self._company}'s and the event {event.company}'s", origin)
        return Rejected("wrong_topic", f"{event.type} does not belong on {record.topic}", origin)
