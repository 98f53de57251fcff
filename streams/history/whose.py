"""Whose a record is, told by its key before anything of it is read."""

from schemas.codec.codec import decode
from schemas.envelope import Event, Origin
from schemas.rejected import Rejected
from schemas.topics import TopicNames
from streams.log.port import Record


class Owner:
    """One company among all that write to a topic. Another's bytes are never decoded, nor counted."""

    def __init__(self, company: str, names: TopicNames) -> None:
        self._company, self._names = company, names
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
        if ours and type(event) in self._names.events_on(record.topic):
            return event
        if not record.key:
            return None
        if isinstance(event, Rejected):
            return event
        if not ours:
            return Rejected("wrong_company", f"the key is {self._company}'s and the event {event.company}'s", origin)
        return Rejected("wrong_topic", f"{event.type} does not belong on {record.topic}", origin)
