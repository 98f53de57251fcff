"""Two companies may use the very same ids: what one of them says never changes a row of the other."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from functools import cache
from typing import Any, get_args, get_origin, get_type_hints

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from processors.saga import ACTING_JOBS
from projections.catalog import PROJECTIONS
from projections.projection import Projection
from schemas.codec.codec import decode
from schemas.envelope import Event, Origin
from schemas.rejected import RecordRejected
from schemas.topics import TOPIC_OF, by_source
from streams.fold.batch import fold
from streams.log.partitioner import partition_of
from streams.log.port import Record
from tests.upgrade.record import HISTORIES, lines

ACME, OTHER = "acme", "acme.x"
# Few, so that they meet; some look like a key of the other company's, or like a part of one.
WORDS = st.sampled_from(["1", "2", "acme", "acme/1", "acme.x/1", "x/1", "1/2", "/"])
PLAIN: dict[Any, st.SearchStrategy[Any]] = {
    str: WORDS,
    int: st.integers(0, 3),
    float: st.floats(0, 1),
    bool: st.booleans(),
}
EVERY = [*PROJECTIONS.values(), ACTING_JOBS]
SAID = [cls for cls in TOPIC_OF if cls is not RecordRejected]
Where = dict[tuple[int, str], msgspec.Struct]


@cache
def alike(cls: Any) -> st.SearchStrategy[Any]:
    """Any event of a class, all its words out of the few."""
    hints = get_type_hints(cls)
    fields = {f.name: _values(hints[f.name]) for f in msgspec.structs.fields(cls) if f.name not in ("type", "version")}
    return st.builds(cls, **fields | ({"company": st.sampled_from([ACME, OTHER])} if issubclass(cls, Event) else {}))


def _values(hint: Any) -> st.SearchStrategy[Any]:
    parts = [part for part in get_args(hint) if part not in (type(None), ...)]
    if get_origin(hint) is tuple:
        return st.lists(_values(parts[0]), max_size=1).map(tuple)
    if parts:
        return st.none() | _values(parts[0])
    return PLAIN[hint] if hint in PLAIN else alike(hint)


def heard_by(projection: Projection[Any]) -> st.SearchStrategy[Event]:
    """Whatever may stand on its topics."""
    return st.one_of([alike(cls) for cls in SAID if TOPIC_OF[cls].name in projection.topics])


def folded(projection: Projection[Any], said: Iterable[Event]) -> tuple[Where, list[Event]]:
    """Rows by partition and key, and what follows from the events, as a worker would have it."""
    sources: dict[int, list[tuple[Record, Event]]] = defaultdict(list)
    for event in said:
        topic = TOPIC_OF[type(event)]
        if topic.name in projection.topics:
            key = topic.key(event).encode()
            partition = partition_of(key, topic.partitions)
            # The time says when, so that it is the same whoever else wrote to the partition.
            sources[partition].append((Record(topic.name, partition, 0, event.time // 1000, key, b""), event))
    rows: Where = {}
    outputs: list[Event] = []
    for partition, events in sources.items():
        done = fold(projection, events, lambda _keys: {})
        rows |= {(partition, key): state for key, (state, _) in done.rows.items()}
        outputs += done.outputs
    return rows, outputs


def of_company(found: tuple[Where, list[Event]], company: str) -> tuple[Where, list[Event]]:
    rows, outputs = found
    mine = {place: state for place, state in rows.items() if place[1].split("/")[0] == company}
    return mine, sorted((event for event in outputs if event.company == company), key=repr)


def apart(projection: Projection[Any], said: Sequence[Event]) -> None:
    together = folded(projection, said)
    alone = {company: folded(projection, [e for e in said if e.company == company]) for company in (ACME, OTHER)}
    for company, found in alone.items():
        assert of_company(together, company) == of_company(found, company)
        # Nothing that a company says makes a row under another's name, or an event in it.
        assert found[0].keys() == of_company(found, company)[0].keys()
        assert {state.company for state in found[0].values()} <= {company}
        assert {event.company for event in found[1]} <= {company}
    assert len(together[0]) == sum(len(rows) for rows, _ in alone.values())


@pytest.mark.parametrize("projection", EVERY, ids=lambda projection: projection.name)
@given(data=st.data())
def test_any_events_with_the_same_ids_fold_as_if_each_company_were_alone(
    projection: Projection[Any], data: st.DataObject
) -> None:
    apart(projection, data.draw(st.lists(heard_by(projection), max_size=20)))


def twins(history: str) -> list[Event]:
    """A recorded log, told by one company and, event by event, by another with the same ids."""
    found = [
        decode(line.value, Origin(line.topic, line.partition, n), line.timestamp, line.headers)
        for n, line in enumerate(lines(HISTORIES / history))
    ]
    first = [event for event in found if isinstance(event, Event) and not isinstance(event, RecordRejected)]
    return [_as(company, event) for event in first for company in (ACME, OTHER)]


def _as(company: str, event: Event) -> Event:
    adapter = getattr(event, "adapter", None)
    named = {} if adapter is None else {"adapter": f"{company}/{adapter.partition('/')[2]}"}
    return msgspec.structs.replace(event, company=company, **named)


@pytest.mark.parametrize("history", sorted(path.name for path in HISTORIES.glob("*.jsonl")))
@pytest.mark.parametrize("projection", EVERY, ids=lambda projection: projection.name)
def test_a_recorded_log_told_by_two_companies_at_once_folds_to_twice_the_same(
    projection: Projection[Any], history: str
) -> None:
    apart(projection, TWINS[history])


TWINS = {path.name: twins(path.name) for path in HISTORIES.glob("*.jsonl")}


@given(one=st.one_of(map(alike, SAID)), other=st.one_of(map(alike, SAID)))
def test_keys_of_two_companies_are_never_one_and_each_names_its_own(one: Event, other: Event) -> None:
    """A letter's key is the place of its record, and no row hangs on it."""

    def keys_of(event: Event) -> list[str | None]:
        own = [] if TOPIC_OF[type(event)].key is by_source else [TOPIC_OF[type(event)].key(event)]
        return [*own, *(projection.key(event) for projection in EVERY)]

    keys = [keys_of(event) for event in (one, other)]
    for event, found in zip((one, other), keys, strict=True):
        assert all(key is None or key.split("/")[0] == event.company for key in found)
    if one.company != other.company:
        assert not set(filter(None, keys[0])) & set(filter(None, keys[1]))
