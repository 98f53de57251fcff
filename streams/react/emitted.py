"""What one try of a reaction emits, checked as it is emitted: whose it is, and that it can be written."""

from collections.abc import Mapping
from contextlib import suppress
from typing import Any

import msgspec

from schemas.codec.catalog import kind_of
from schemas.codec.primitives import MAX_TIME
from schemas.envelope import Event
from schemas.errors import Poison
from schemas.topics import TOPIC_OF, TopicNames, company_says
from streams.log.outgoing import record_of
from streams.log.port import Outgoing, Record
from streams.react.reaction import Reaction

MOST = 100
"""Events of one try."""
DEEPEST = 10
"""Reactions to what reactions emit. Two that answer each other would fill the log."""
DEPTH = "rillfold-reacted"
"""A header: how many reactions lie between this record and what somebody said."""
ENVELOPE = frozenset(field.name for field in msgspec.structs.fields(Event))


class CannotEmit(Poison):
    """What a reaction wants to say is not for it to say."""


class Emitting:
    """Given to a reaction as `emit`. What it collects counts when the reaction has come to its end."""

    def __init__(self, reaction: Reaction, names: TopicNames, record: Record, cause: Event) -> None:
        self._reaction, self._names, self._record, self._cause = reaction, names, record, cause
        self._depth = _depth(record) + 1
        self._over = False
        self.records: list[Outgoing] = []

    def __call__(self, kind: type[Any], /, **fields: Any) -> None:
        self._check(kind, fields)
        given = {**self._envelope(kind), **msgspec.to_builtins(fields, builtin_types=(bytes,))}
        record = record_of(given, str, 0, self._names)
        self.records.append(record._replace(headers=((DEPTH, b"%d" % self._depth),)))

    def end(self) -> None:
        """Whoever emits from now on has been given up."""
        self._over = True

    def _check(self, kind: type[Any], fields: Mapping[str, Any]) -> None:
        if self._over:
            raise CannotEmit(f"{self._reaction} emits after its end: emit before it returns, and in time.")
        if kind not in TOPIC_OF or not company_says(kind):
            name, told = (
                getattr(kind, "__name__", kind),
                "emit an event of company-data, or a wish such as JobRequested",
            )
            raise CannotEmit(f"{self._reaction} emits {name!s:.80}, which no company says: {told}.")
        if taken := sorted(ENVELOPE & fields.keys()):
            told = "it is that of the event that is reacted to, or follows from it. Leave it out"
            raise CannotEmit(f"{self._reaction} emits {kind.__name__} with {taken[0]!r}: {told}.")
        if len(self.records) >= MOST:
            raise CannotEmit(f"{self._reaction} emits more than {MOST} events over one: say less, or one for all.")
        if self._depth > DEEPEST:
            told = "reactions that answer each other never end. React to something else"
            raise CannotEmit(f"{self._reaction} emits {kind.__name__} behind {DEEPEST} other reactions: {told}.")

    def _envelope(self, kind: type[Event]) -> dict[str, Any]:
        type_, version = kind_of(kind)
        return {
            "type": type_,
            "version": version,
            "id": self._reaction.emitted_id(self._record.origin, len(self.records)),
            "company": self._cause.company,
            # The record's own time: whoever tries again says the same.
            "time": min(max(0, self._record.timestamp) * 1000, MAX_TIME),
            "causation": self._cause.id,
            "correlation": self._cause.correlation,
        }


def _depth(record: Record) -> int:
    """Whoever wrote the record may have written anything here."""
    for name, value in record.headers:
        if name == DEPTH:
            with suppress(ValueError):
                return min(max(0, int((value or b"")[:4])), DEEPEST)
    return 0
