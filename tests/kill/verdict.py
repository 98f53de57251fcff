"""What must hold when all is quiet again. The judge folds the log by itself: no engine, one event after another."""

from __future__ import annotations

import random
from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec
import psycopg

from processors.saga import ACTING_JOBS
from projections.catalog import PROJECTIONS
from projections.jobs import JOBS, Job, effect_id, last_input
from projections.projection import Projection
from schemas.codec.codec import decode
from schemas.envelope import Event, Origin, derived_id
from schemas.inference import InferenceRequested
from schemas.jobs import JobCompleted, JobFailed
from schemas.rejected import RecordRejected, Rejected
from schemas.tools import ToolCallProposed
from schemas.topics import TopicNames
from streams.log.kafka.log import KafkaLog
from streams.log.port import Record
from streams.read_model.schema import table_of
from streams.read_model.sink import RawRow
from streams.state.changelog import RESERVED, RowCodec, marker_of, topic_of
from streams.state.store import POSITION, RocksStore
from tests.kill.traffic import FOLDED, SERIAL, Ledger

Rows = dict[int, dict[str, msgspec.Struct]]
Raw = dict[bytes, bytes]
_at = msgspec.json.Decoder(RawRow)
MARKER = RESERVED + b"marker/"
ALL: tuple[Projection[Any], ...] = tuple({**PROJECTIONS, ACTING_JOBS.name: ACTING_JOBS}.values())


class Judge:
    """Reads the log once; each check raises with the names of what differs."""

    def __init__(self, log: KafkaLog, names: TopicNames, ledger: Ledger, seed: int, evidence: Path) -> None:
        self._log, self._names, self._ledger, self._seed, self._folder = log, names, ledger, seed, evidence
        self.rows: dict[str, Rows] = {p.name: defaultdict(dict) for p in ALL}
        self.refused: dict[tuple[str, int, int], Record] = {}
        self.ids: Counter[str] = Counter()
        self.effects: Counter[str] = Counter()
        self.asked: set[str] = set()
        self.ends: dict[str, set[str]] = defaultdict(set)
        self.counts: Counter[str] = Counter()

    async def read(self) -> None:
        """The topics in an order by chance, each wholly before the next: another order than any worker's."""
        topics = [*FOLDED, "inference-request"]
        random.Random(self._seed).shuffle(topics)
        for topic in topics:
            folded = [projection for projection in ALL if topic in projection.topics]
            async for record in self._records(self._names.wire(topic)):
                self.counts["records"] += 1
                place = Origin(record.topic, record.partition, record.offset)
                event = decode(record.value, place, record.timestamp, record.headers)
                if isinstance(event, Rejected):
                    self.refused[record.topic, record.partition, record.offset] = record
                else:
                    self._take(event, record.partition, folded)

    def _take(self, event: Event, partition: int, folded: Iterable[Projection[Any]]) -> None:
        self.ids[event.id] += 1
        if isinstance(event, InferenceRequested | ToolCallProposed | JobCompleted | JobFailed):
            self.effects[event.id] += 1
        if isinstance(event, InferenceRequested | ToolCallProposed):
            self.asked.add(event.id)
        if isinstance(event, JobCompleted | JobFailed):
            self.ends[f"{event.company}/{event.job}"].add(event.id)
        for projection in folded:
            key = projection.key(event)
            if key is not None:
                rows = self.rows[projection.name][partition]
                before = rows.get(key)
                state = projection.initial(key) if before is None else before
                after = projection.fold(state, event)
                if after is not state:
                    rows[key] = after

    async def _records(self, topic: str) -> AsyncIterator[Record]:
        for partition, first in (await self._log.starts(topic)).items():
            async for batch in self._log.read(topic, partition, first):
                for record in batch:
                    yield record

    def check_the_log(self) -> None:
        """It holds all that was acknowledged, and nothing that was aborted."""
        lost = self._ledger.ids - self.ids.keys()
        assert not lost, f"{len(lost)} acknowledged events are not in the log: {_some(lost)}"
        ghosts = self._ledger.ghosts & self.ids.keys()
        assert not ghosts, f"{len(ghosts)} aborted events are read: {_some(ghosts)}"
        poison = {dict(record.headers).get(SERIAL, b"?").decode() for record in self.refused.values()}
        assert poison == self._ledger.poison.keys(), f"poison {_some(poison ^ self._ledger.poison.keys())}"
        self.counts["events"] = sum(self.ids.values())
        self.counts["repeats"] = self.counts["events"] - len(self.ids)
        self.counts["rows"] = sum(len(part) for rows in self.rows.values() for part in rows.values())

    async def check_dead_letters(self) -> None:
        """One letter for each refused record, by its id; every repeat of it is the same to the byte."""
        letters: dict[str, RecordRejected] = {}
        async for record in self._records(self._names.wire("dead-letter")):
            letter = decode(record.value, Origin(record.topic, record.partition, record.offset), record.timestamp)
            assert isinstance(letter, RecordRejected), letter
            self.counts["letters"] += 1
            assert letters.setdefault(letter.id, letter) == letter, f"two letters {letter.id} differ"
        by_place = {(letter.topic, letter.partition, letter.offset): letter for letter in letters.values()}
        assert len(by_place) == len(letters), "one record has two letters with different ids"
        differ = by_place.keys() ^ self.refused.keys()
        assert not differ, f"{len(differ)} letters lack a record, or records a letter: {_some(differ)}"
        for place, record in self.refused.items():
            letter = by_place[place]
            headers = tuple((header.key, header.value) for header in letter.headers)
            there = (letter.key, letter.value, headers, letter.timestamp)
            assert there == (record.key, record.value, record.headers, record.timestamp), place
        self.counts["letters twice"] = self.counts["letters"] - len(letters)
        self.counts["dead"] = len(letters)

    def check_jobs(self) -> None:
        """Each request ends in one end; every effect of it is in the log; no effect lacks its cause."""
        inputs: set[str] = set()
        for rows in self.rows[JOBS.name].values():
            for key, job in rows.items():
                assert isinstance(job, Job)
                if job.request is None:
                    continue
                self.counts["jobs"] += 1
                assert job.status in ("completed", "failed"), f"job {key} stays {job.status}: {last_input(job)}"
                assert len(self.ends[key]) == 1, f"job {key} has {len(self.ends[key])} ends"
                inputs |= {job.request, *(reply.id for reply in job.replies)}
        expected = {effect_id(input_) for input_ in inputs}
        lost = expected - self.effects.keys()
        assert not lost, f"{len(lost)} effects are lost: {_some(lost)}"
        alone = {id_ for id_ in self.effects.keys() - expected if id_ not in self._ledger.ids}
        assert not alone, f"{len(alone)} effects have no cause: {_some(alone)}"
        # Every effect but the end comes with a line of the job's story.
        told = {derived_id(input_, "step") for input_ in inputs if effect_id(input_) in self.asked}
        assert told <= self.ids.keys(), f"job.stepped is lost: {_some(told - self.ids.keys())}"
        self.counts["effects"] = len(expected)
        self.counts["effects twice"] = sum(self.effects[id_] - 1 for id_ in expected)

    async def check_changelogs(self, tables: Sequence[Path]) -> None:
        """Rows, place by place; every local copy, whoever holds it, is the changelog up to some offset."""
        for projection in ALL:
            changelog = topic_of(projection, self._names.prefix)
            for partition in await self._log.ends(changelog):
                history = [record async for record in self._partition(changelog, partition)]
                found = _replayed(history)
                try:
                    folded_once(history)
                    self._compare(projection, partition, found, changelog)
                except AssertionError:
                    self._evidence(f"{changelog}-{partition}", history)
                    raise
                copies = [_local(path / changelog / str(partition)) for path in tables]
                held = [copy for copy in copies if copy is not None]
                assert any(_clean(copy) == _clean(found) for copy in held), f"no worker has {changelog}/{partition}"
                for copy in held:
                    assert _prefix(history, copy), f"a copy of {changelog}/{partition} is no prefix of it"
                self.counts["copies"] += len(held)

    async def _partition(self, topic: str, partition: int) -> AsyncIterator[Record]:
        async for batch in self._log.read(topic, partition, (await self._log.starts(topic))[partition]):
            for record in batch:
                yield record

    def _evidence(self, name: str, history: list[Record]) -> None:
        """Who claimed the partition, what was written when: on disk, before the broker's folder is gone."""
        with (self._folder / f"{name}.jsonl").open("w") as out:
            for record in history:
                out.write(f"{record.offset} {record.timestamp} {record.key!r} {(record.value or b'')[:200]!r}\n")

    def _compare(self, projection: Projection[Any], partition: int, found: Raw, where: str) -> None:
        codec = RowCodec(projection.state)
        rows = {key.decode(): codec.decode(value).row for key, value in _clean(found).items()}
        _same(rows, self.rows[projection.name][partition], f"{where}/{partition}")

    async def check_postgres(self, dsn: str) -> None:
        """Every table, and how far it says that it is."""
        async with await psycopg.AsyncConnection.connect(dsn, autocommit=True) as connection:
            await connection.execute("SET search_path TO rillfold")
            for projection in ALL:
                cursor = await connection.execute(f"SELECT key, partition, row FROM {table_of(projection)}")
                rows: Rows = defaultdict(dict)
                for key, partition, row in await cursor.fetchall():
                    rows[partition][key] = msgspec.convert(row, projection.state)
                for partition in range(4):
                    should = self.rows[projection.name][partition]
                    _same(rows[partition], should, f"Postgres {table_of(projection)}/{partition}")
            cursor = await connection.execute("SELECT projection, topic, partition, next FROM positions")
            for name, topic, partition, next_ in await cursor.fetchall():
                assert next_ == (await self._log.ends(topic))[partition], (
                    f"Postgres says {name} is at {topic}/{partition}/{next_}"
                )
                self.counts["positions"] += 1
        assert self.counts["positions"] == sum(4 * len(projection.topics) for projection in ALL)


def folded_once(history: Iterable[Record]) -> None:
    """Each batch begins where the marker before it stands, also where a fold would not mind a second time."""
    markers: dict[str, int] = {}
    rows: list[tuple[bytes, tuple[str, int, int]]] = []
    for record in history:
        key, value = record.key or b"", record.value or b""
        marker = marker_of(key, value)
        if marker is not None:
            before = markers.get(marker.topic, 0)
            assert marker.next > before, (
                f"at {record.offset} the marker of {marker.topic} goes from {before} back to {marker}"
            )
            for row, (topic, _, offset) in rows:
                where = f"at {record.offset} {row!r} was folded from {topic}/{offset}, outside of {before} to {marker}"
                assert topic == marker.topic and before <= offset < marker.next, where
            markers[marker.topic] = marker.next
            rows.clear()
        elif not key.startswith(RESERVED):
            rows.append((key, _at.decode(value).at))


def _same(found: Mapping[str, Any], should: Mapping[str, Any], where: str) -> None:
    differ = [key for key in {**found, **should} if found.get(key) != should.get(key)]
    shown = "".join(f"\n  {key}\n    is     {found.get(key)}\n    should {should.get(key)}" for key in differ[:3])
    assert not differ, f"{where}: {len(differ)} of {len(should)} rows differ{shown}"


def _replayed(history: Iterable[Record], last: int | None = None) -> Raw:
    rows: Raw = {}
    for record in history:
        if last is not None and record.offset > last:
            break
        if record.value is None:
            rows.pop(record.key or b"", None)
        else:
            rows[record.key or b""] = record.value
    return rows


def _clean(rows: Raw) -> Raw:
    return {key: value for key, value in rows.items() if not key.startswith(RESERVED)}


def _local(path: Path) -> Raw | None:
    if not path.exists():
        return None
    store = RocksStore(path)
    rows = dict(store.scan())
    position = store.position()
    store.close()
    return None if position is None else {**rows, POSITION: position.to_bytes(8, "big")}


def _prefix(history: list[Record], copy: Raw) -> bool:
    """Rows and markers are those at the copy's own position. Where the broker could not tell it, it lags by a batch."""
    position = int.from_bytes(copy[POSITION], "big")
    markers = [r.offset for r in history if r.offset > position and r.value and marker_of(r.key or b"", r.value)]
    there = _counted(copy)
    return any(there == _counted(_replayed(history, last)) for last in (position, *markers[:2]))


def _counted(rows: Raw) -> Raw:
    return {key: value for key, value in rows.items() if key.startswith(MARKER) or not key.startswith(RESERVED)}


def _some(names: Iterable[Any]) -> str:
    return ", ".join(str(name) for name in sorted(names, key=str)[:5])
