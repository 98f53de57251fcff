"""What must hold when all is quiet again. The judge folds the log by itself: no engine, one event after another."""

from __future__ import annotations

import random
from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec
import psycopg

from projections.jobs import JOBS, Job, effect_id, last_input
from projections.projection import Projection
from schemas.codec.codec import decode
from schemas.envelope import Event, Origin, derived_id
from schemas.inference import InferenceRequested
from schemas.jobs import JobCompleted, JobFailed, JobStepped
from schemas.rejected import Rejected
from schemas.tools import ToolCallProposed
from schemas.topics import TopicNames
from streams.fold.pieces import BATCH_BYTES
from streams.log.kafka.log import KafkaLog
from streams.log.port import Record
from streams.read_model.schema import table_of
from streams.state.changelog import RowCodec, refusal_of, topic_of
from tests.kill.changelogs import Changelogs
from tests.kill.injected import Injected, Place, Unfolded
from tests.kill.letters import Letterbox, Spot, spot_of
from tests.kill.owners import Cause, Owners
from tests.kill.releases import ALL, BUMPED, OLDER
from tests.kill.traffic import FOLDED, SERIAL, Ledger
from tests.kill.written import Raw, apart, clean, folded_once, local, prefix, replayed, sparse

Rows = dict[int, dict[str, msgspec.Struct]]
LOST = b"\x00lost/"
WHOLE = Unfolded(0, 0)
FRAME = 5
"""Bytes by which a registry's serializer names a schema."""
WHOLE_ROW = 2_000
"""Bytes of a row that its evidence shows: most rows are shorter."""


class Judge:
    """Reads the log once; each check raises with the names of what differs."""

    def __init__(
        self,
        log: KafkaLog,
        names: TopicNames,
        ledger: Ledger,
        injected: Injected,
        seed: int,
        evidence: Path,
        changelogs: Changelogs,
        owners: Owners,
    ) -> None:
        self._changelogs, self._owners = changelogs, owners
        self._log, self._names, self._ledger, self._injected = log, names, ledger, injected
        self._seed, self._folder = seed, evidence
        self.rows: dict[str, Rows] = {p.name: defaultdict(dict) for p in ALL}
        self.refused: dict[Spot, Record] = {}
        self.untaken: dict[tuple[str, int], set[tuple[str, int, int, str]]] = defaultdict(set)
        """By projection and partition: events that it refuses, and why."""
        self._codecs = {p.name: RowCodec(p.state) for p in ALL}
        self.letters = Letterbox()
        self._said = ""
        self.ids: Counter[str] = Counter()
        self.effects: dict[str, list[float]] = defaultdict(list)
        """When each was said."""
        self._first: dict[str, Cause] = {}
        """Where each event of a job stands first."""
        self.asked: set[str] = set()
        self.ends: dict[str, set[str]] = defaultdict(set)
        self.counts: Counter[str] = Counter()

    async def read(self, said: str) -> None:
        """The topics in an order by chance, each wholly before the next: another order than any worker's.

        `said` is all that the workers have said.
        """
        self._said = said
        async for record in self._records(self._names.wire("dead-letter")):
            self.letters.put(record)
        topics = [*FOLDED, "inference-request"]
        random.Random(self._seed).shuffle(topics)
        for topic in topics:
            folded = [projection for projection in ALL if topic in projection.topics]
            async for record in self._records(self._names.wire(topic)):
                self.counts["records"] += 1
                self.letters.sent(record)
                event = self._read(record)
                if isinstance(event, Rejected):
                    self.refused[spot_of(record)] = record
                else:
                    self._take(event, record, folded)

    def _read(self, record: Record) -> Event | Rejected:
        """What is under the registry's frame is an event, unless somebody has refused it: then it stays refused."""
        place, value = Origin(record.topic, record.partition, record.offset), record.value
        known = (value or b"") in self._ledger.framed
        if known and self.letters.at(spot_of(record)) is None:
            self.counts["framed events"] += 1
            frame, body = (value or b"")[:FRAME], (value or b"")[FRAME:]
            value = self._ledger.stems[frame] + body
        self.counts["framed refused"] += known and value == record.value
        return decode(value, place, record.timestamp, record.headers)

    def _take(self, event: Event, record: Record, folded: Iterable[Projection[Any]]) -> None:
        place = record.topic, record.partition
        self.ids[event.id] += 1
        if isinstance(event, InferenceRequested | ToolCallProposed | JobCompleted | JobFailed | JobStepped):
            self.effects[event.id].append(record.timestamp / 1000)
        if BUMPED in folded:
            self._first.setdefault(event.id, (*place, record.offset))
        if isinstance(event, InferenceRequested | ToolCallProposed):
            self.asked.add(event.id)
        if isinstance(event, JobCompleted | JobFailed):
            self.ends[f"{event.company}/{event.job}"].add(event.id)
        for projection in folded:
            key = projection.key(event)
            if key is None or self._passed(projection.name, place, record.offset):
                continue
            rows = self.rows[projection.name][record.partition]
            before = rows.get(key)
            state = projection.initial(key) if before is None else before
            after = projection.fold(state, event)
            if after is state:
                continue
            if len(self._codecs[projection.name].encode(after, *place, record.offset)) > BATCH_BYTES:
                self.untaken[projection.name, record.partition].add((*place, record.offset, "row_too_large"))
            else:
                rows[key] = after

    def _passed(self, projection: str, place: Place, offset: int) -> bool:
        """Not folded, as somebody had to say."""
        own = projection, *place
        there = self._injected.lost.get(own, WHOLE), self._injected.begins.get(own, WHOLE)
        return any(each.holds(offset) for each in there)

    async def _records(self, topic: str) -> AsyncIterator[Record]:
        """With what was deleted from its beginning."""
        for partition, first in (await self._log.starts(topic)).items():
            stop = self._injected.starts.get((topic, partition), 0)
            assert first == stop, f"{topic}/{partition} begins at {first}, and was deleted up to {stop}"
            for record in self._injected.kept.get((topic, partition), ()):
                yield record
            async for record in self._partition(topic, partition):
                yield record

    def check_the_log(self) -> None:
        """It holds all that was acknowledged, and nothing that was aborted."""
        lost = self._ledger.ids - self.ids.keys()
        assert not lost, f"{len(lost)} acknowledged events are not in the log: {_some(lost)}"
        ghosts = self._ledger.ghosts & self.ids.keys()
        assert not ghosts, f"{len(ghosts)} aborted events are read: {_some(ghosts)}"
        strange = [record for record in self.refused.values() if (record.value or b"") not in self._ledger.framed]
        poison = {dict(record.headers).get(SERIAL, b"?").decode() for record in strange}
        assert poison == self._ledger.poison.keys(), f"poison {_some(poison ^ self._ledger.poison.keys())}"
        there = {self._ledger.framed.get(record.value or b"") for record in self.refused.values()} | self.ids.keys()
        nowhere = set(self._ledger.framed.values()) - there
        assert not nowhere, f"{len(nowhere)} events under the registry's frame are nowhere: {_some(nowhere)}"
        self.counts["events"] = sum(self.ids.values())
        self.counts["repeats"] = self.counts["events"] - len(self.ids)
        self.counts["rows"] = sum(len(part) for rows in self.rows.values() for part in rows.values())

    def check_letters(self) -> None:
        places = {place for place in self.refused if not self._unseen(*place[:3])}
        self.letters.check(self.refused, places)
        self.letters.check_repeats(self._letter_excused)
        self.counts.update(self.letters.counts)

    def _letter_excused(self, spot: Spot, first: float, again: float) -> bool:
        """Whoever folds the topic may have written it."""
        return self._owners.excused(self._folding(spot[0]), spot[:3], first, again)

    def _folding(self, topic: str) -> list[str]:
        """The changelogs of all that fold it, in any release."""
        folded = [each for each in (*ALL, OLDER) if topic in map(self._names.wire, each.topics)]
        there = self._changelogs.names
        return [name for each in folded if (name := topic_of(each, self._names.prefix)) in there]

    def _unseen(self, topic: str, partition: int, offset: int) -> bool:
        return self._injected.unseen.get((topic, partition), WHOLE).holds(offset)

    def check_jobs(self) -> None:
        """Each request ends in one end; every effect of it is in the log; no effect lacks its cause."""
        inputs: set[str] = set()
        causes: dict[str, set[str]] = defaultdict(set)
        for rows in self.rows[JOBS.name].values():
            for key, job in rows.items():
                assert isinstance(job, Job)
                if job.request is None:
                    continue
                self.counts["jobs"] += 1
                last = last_input(job) or ""
                assert job.status in ("completed", "failed"), (
                    f"job {key} stays {job.status}: what follows from {last} stands in the log "
                    f"{len(self.effects.get(effect_id(last), ()))} times"
                )
                assert len(self.ends[key]) == 1, f"job {key} has {len(self.ends[key])} ends"
                taken = {job.request, *(reply.id for reply in job.replies)}
                inputs |= taken
                for input_ in taken:
                    # A reply that came before its question is taken with it.
                    for effect in (effect_id(input_), derived_id(input_, "step")):
                        causes[effect] |= {input_, job.request}
        expected = {effect_id(input_) for input_ in inputs}
        lost = expected - self.effects.keys()
        assert not lost, f"{len(lost)} effects are lost: {_some(lost)}"
        # Every effect but the end comes with a line of the job's story.
        told = {derived_id(input_, "step") for input_ in inputs if effect_id(input_) in self.asked}
        assert told <= self.effects.keys(), f"job.stepped is lost: {_some(told - self.effects.keys())}"
        alone = {id_ for id_ in self.effects.keys() - expected - told if id_ not in self._ledger.ids}
        assert not alone, f"{len(alone)} effects have no cause: {_some(alone)}"
        self.counts["effects"] = len(expected)
        self.counts["effects twice"] = sum(len(self.effects[id_]) - 1 for id_ in expected)
        self._check_effects_once(causes)

    def _check_effects_once(self, causes: Mapping[str, set[str]]) -> None:
        """Whoever takes over says nothing that the log holds; who was shut out may say what he had in hand."""
        changelogs = [topic_of(each, self._names.prefix) for each in (BUMPED, OLDER)]
        strange = []
        for effect, inputs in causes.items():
            first, *more = self.effects.get(effect, [0.0])
            spots = [self._first[input_] for input_ in inputs]
            strange += [
                (effect, spots, first, again)
                for again in more
                if not any(self._owners.excused(changelogs, spot, first, again) for spot in spots)
            ]
        assert not strange, f"{len(strange)} effects were said again for no reason: {strange[:5]}"

    async def check_changelogs(self, tables: Sequence[Path]) -> None:
        """Rows, place by place; every local copy, whoever holds it, is the changelog up to some offset."""
        for projection in ALL:
            changelog = topic_of(projection, self._names.prefix)
            for partition in await self._log.ends(changelog):
                history = self._changelogs.history(changelog, partition)
                found = replayed(history)
                left = [record async for record in self._partition(changelog, partition)]
                _same(replayed(left), found, f"what the cleaner left of {changelog}/{partition}")
                gone = {record.offset for record in history} - {record.offset for record in left}
                self.counts["cleaned away"] += len(gone)
                self.counts["changelogs cleaned"] += bool(gone)
                self._check_losses(projection.name, partition, found)
                self._check_untaken(projection.name, partition, found)
                try:
                    folded_once(history)
                    self._compare(projection, partition, found, changelog)
                except AssertionError:
                    self._evidence(f"{changelog}-{partition}", history)
                    await self._sources(projection, partition)
                    raise
                copies = [local(path / changelog / str(partition)) for path in tables]
                held = [copy for copy in copies if copy is not None]
                assert any(clean(copy) == clean(found) for copy in held), f"no worker has {changelog}/{partition}"
                for copy in held:
                    whole = prefix(history, copy)
                    if not whole and not sparse(history, gone, copy):
                        self._evidence(f"{changelog}-{partition}", history)
                        why = apart(history, gone, copy)
                        raise AssertionError(f"a copy of {changelog}/{partition} is no prefix of it: {why}")
                    self.counts["copies of a cleaned log"] += not whole
                self.counts["copies"] += len(held)

    def _check_losses(self, projection: str, partition: int, found: Raw) -> None:
        """The changelog names exactly what was lost, and a worker has asked an operator about it."""
        named = {}
        for key, value in found.items():
            if key.startswith(LOST):
                loss = msgspec.json.decode(value)
                named[projection, loss["topic"], loss["partition"]] = Unfolded(loss["folded"], loss["next"])
        lost = {place: at for place, at in self._injected.lost.items() if place[::2] == (projection, partition)}
        assert named == lost, f"{projection}/{partition} names {named}, and {lost} is lost"
        for (_, topic, _), at in lost.items():
            offer = f'"{topic}/{partition}@{at.start}": {at.offered}'
            assert offer in self._said, f"no worker has named {offer}"
        self.counts["losses named"] += len(lost)
        for (name, topic, number), at in self._injected.begins.items():
            if (name, number) == (projection, partition):
                begins = f"{name} begins on {topic}/{number} at {at.stop}: what stood below is deleted"
                assert begins in self._said, f"no worker has said: {begins}"
                self.counts["beginnings named"] += 1

    def _check_untaken(self, projection: str, partition: int, found: Raw) -> None:
        """The changelog names exactly the events that its projection could not take."""
        refusals = (refusal_of(key, value) for key, value in found.items())
        named = {(each.topic, each.partition, each.offset, each.reason) for each in refusals if each is not None}
        should = self.untaken[projection, partition]
        assert named == should, f"{projection}/{partition} names as refused {sorted(named ^ should)[:5]}"
        self.counts["refused by a projection"] += len(should)

    def check_what_happened(self) -> None:
        """The broker's cleaner was at work all the while, and not every event could be taken."""
        assert self.counts["cleaned away"] > 0, "no changelog was cleaned"
        assert self.counts["refused by a projection"] > 0, "no projection has refused an event"

    async def _partition(self, topic: str, partition: int) -> AsyncIterator[Record]:
        async for batch in self._log.read(topic, partition, (await self._log.starts(topic))[partition]):
            for record in batch:
                yield record

    def _evidence(self, name: str, history: list[Record]) -> None:
        """Who claimed the partition, what was written when: on disk, before the broker's folder is gone."""
        with (self._folder / f"{name}.jsonl").open("w") as out:
            for record in history:
                out.write(f"{record.offset} {record.timestamp} {record.key!r} {(record.value or b'')[:WHOLE_ROW]!r}\n")

    async def _sources(self, projection: Projection[Any], partition: int) -> None:
        """What was to be folded there, record by record."""
        with (self._folder / f"{projection.name}-{partition}.sources").open("w") as out:
            for topic in map(self._names.wire, projection.topics):
                async for record in self._records(topic):
                    event = self._read(record) if record.partition == partition else None
                    if event is not None and not isinstance(event, Rejected) and (key := projection.key(event)):
                        out.write(f"{topic} {record.offset} {record.timestamp} {key} {event.type} {event.id}\n")

    def _compare(self, projection: Projection[Any], partition: int, found: Raw, where: str) -> None:
        codec = RowCodec(projection.state)
        rows = {key.decode(): codec.decode(value).row for key, value in clean(found).items()}
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


def _same(found: Mapping[Any, Any], should: Mapping[Any, Any], where: str) -> None:
    differ = [key for key in {**found, **should} if found.get(key) != should.get(key)]
    shown = "".join(f"\n  {key}\n    is     {found.get(key)}\n    should {should.get(key)}" for key in differ[:3])
    assert not differ, f"{where}: {len(differ)} of {len(should)} rows differ{shown}"


def _some(names: Iterable[Any]) -> str:
    return ", ".join(str(name) for name in sorted(names, key=str)[:5])
