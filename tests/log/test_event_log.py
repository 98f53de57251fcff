"""The contract of the event log: one suite, every backend."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence

import pytest
from aiokafka.partitioner import murmur2

from streams.errors import Fenced, MissingOffsets, ShutOut, TooLarge, UnknownTopic
from streams.log.port import BATCH_LIMIT, EventLog, Outgoing, Position, Record, Subscription, TopicSpec, record_limit

LIMIT = record_limit(BATCH_LIMIT)


def numbered(topic: str, count: int, partition: int = 0, first: int = 0) -> list[Outgoing]:
    return [Outgoing(topic, None, str(n).encode(), partition=partition) for n in range(first, first + count)]


def numbers(records: Sequence[Record]) -> list[int]:
    return [int(record.value or b"-1") for record in records]


async def everything(
    log: EventLog, topic: str, partition: int = 0, start: int = 0, stop: int | None = None
) -> list[Record]:
    return [record async for batch in log.read(topic, partition, start, stop) for record in batch]


async def until(member: Subscription, enough: Callable[[list[Record]], bool]) -> list[Record]:
    """Polls until the records seen are enough; the suite's own time limit catches a log that never delivers."""
    seen: list[Record] = []
    while not enough(seen):
        for batch in (await member.poll(0.5)).values():
            seen.extend(batch)
    return seen


def next_offsets(records: Sequence[Record]) -> Mapping[tuple[str, int], int]:
    return {(record.topic, record.partition): record.offset + 1 for record in records}


async def settled(*members: Subscription) -> None:
    """Every member has one partition of the two, by one assignment: one who has not polled since still holds what an
    earlier one gave him. Members join while they poll."""
    while [len(member.assignment()) for member in members] != [1, 1] or len(
        {each.generation() for each in members}
    ) > 1:
        for member in members:
            await member.poll(0.2, limit=1)


class TestAppend:
    async def test_positions_stand_in_the_order_of_the_records(self, log: EventLog, topic: str) -> None:
        first = await log.append([*numbered(topic, 2, partition=1), *numbered(topic, 2, partition=0)])
        assert first == [Position(topic, 1, 0), Position(topic, 1, 1), Position(topic, 0, 0), Position(topic, 0, 1)]
        assert await log.append(numbered(topic, 1, partition=1)) == [Position(topic, 1, 2)]

    async def test_a_record_with_neither_key_nor_value_is_a_record(self, log: EventLog, topic: str) -> None:
        """Strangers write such; who redrives their dead letters must be able to."""
        await log.append([Outgoing(topic, None, None, partition=0), Outgoing(topic, b"", None, partition=0)])
        assert [(record.key, record.value) for record in await everything(log, topic)] == [(None, None), (b"", None)]

    async def test_nothing_is_appended_by_an_empty_list(self, log: EventLog, topic: str) -> None:
        assert await log.append([]) == []
        assert await log.ends(topic) == {0: 0, 1: 0}

    async def test_a_key_decides_the_partition_as_kafkas_java_client_does(self, log: EventLog, topic: str) -> None:
        keys = [f"company-{n}".encode() for n in range(40)]
        placed = await log.append([Outgoing(topic, key, b"{}") for key in keys])
        assert [position.partition for position in placed] == [(murmur2(key) & 0x7FFFFFFF) % 2 for key in keys]

    async def test_order_within_a_partition_is_kept_over_many_batches(self, log: EventLog, topic: str) -> None:
        padding = b"x" * 2000
        records = [Outgoing(topic, None, b"%d " % n + padding, partition=n % 2) for n in range(2000)]
        placed = await log.append(records)
        assert [p.offset for p in placed if p.partition == 0] == list(range(1000))
        for partition in (0, 1):
            read = await everything(log, topic, partition)
            assert [int((r.value or b"").split()[0]) for r in read] == list(range(partition, 2000, 2))

    async def test_concurrent_appends_lose_and_mix_nothing(self, log: EventLog, topic: str) -> None:
        batches = [numbered(topic, size, partition=0, first=1000 * n) for n, size in enumerate([1, 3, 40, 2, 400, 17])]
        placed = await asyncio.gather(*(log.append(batch) for batch in batches))
        read = {r.offset: int(r.value or b"") for r in await everything(log, topic)}
        assert len(read) == sum(map(len, batches))
        for batch, positions in zip(batches, placed, strict=True):
            assert [read[p.offset] for p in positions] == [int(r.value or b"") for r in batch]
            assert [p.offset for p in positions] == sorted(p.offset for p in positions)

    async def test_everything_a_record_carries_comes_back(self, log: EventLog, topic: str) -> None:
        headers = (("traceparent", b"00-1"), ("empty", b""), ("traceparent", b"again"))
        sent = Outgoing(topic, b"\x00key", b"\xff\x00", headers, partition=1, timestamp=1_700_000_000_123)
        await log.append([sent])
        assert await everything(log, topic, 1) == [
            Record(topic, 1, 0, 1_700_000_000_123, b"\x00key", b"\xff\x00", headers)
        ]

    async def test_a_key_without_value_is_a_tombstone(self, log: EventLog, topic: str) -> None:
        (position,) = await log.append([Outgoing(topic, b"row", None)])
        (record,) = await everything(log, topic, position.partition)
        assert (record.key, record.value) == (b"row", None)

    async def test_records_without_key_are_accepted(self, log: EventLog, topic: str) -> None:
        placed = await log.append([Outgoing(topic, None, b"1"), Outgoing(topic, None, b"2")])
        assert {position.partition for position in placed} < {0, 1}

    async def test_the_log_stamps_what_has_no_time(self, log: EventLog, topic: str) -> None:
        await log.append(numbered(topic, 2))
        first, second = await everything(log, topic)
        assert 1_700_000_000_000 < first.timestamp <= second.timestamp

    async def test_a_value_at_the_limit_is_taken(self, log: EventLog, topic: str) -> None:
        value = b"v" * LIMIT
        await log.append([Outgoing(topic, None, value, partition=0)] * 3)
        assert [record.value == value for record in await everything(log, topic)] == [True] * 3

    async def test_a_value_above_the_limit_is_refused_before_anything_is_sent(self, log: EventLog, topic: str) -> None:
        with pytest.raises(TooLarge, match=topic):
            await log.append([*numbered(topic, 1), Outgoing(topic, None, b"v" * (LIMIT + 1), partition=0)])
        assert await log.ends(topic) == {0: 0, 1: 0}

    async def test_a_topic_may_have_a_limit_of_its_own(self, log: EventLog, topic: str) -> None:
        large = f"{topic}-large"
        await log.create([TopicSpec(large, 1, {"max.message.bytes": str(8 << 20)})])
        values = [b"v" * (record_limit(8 << 20) - n) for n in range(3)]
        await log.append([Outgoing(large, None, value) for value in values])
        assert [record.value for record in await everything(log, large)] == values
        with pytest.raises(TooLarge):
            await log.append([Outgoing(large, None, values[0] + b"v")])

    async def test_an_absent_topic_is_named(self, log: EventLog, topic: str) -> None:
        with pytest.raises(UnknownTopic, match=f"{topic}-absent.*rillfold topics create"):
            await log.append(numbered(f"{topic}-absent", 1))


class TestTopics:
    async def test_creating_again_changes_nothing(self, log: EventLog, topic: str) -> None:
        await log.append(numbered(topic, 1))
        assert await log.create([TopicSpec(topic, 7), TopicSpec(f"{topic}-b", 3)]) == [f"{topic}-b"]
        assert await log.ends(topic) == {0: 1, 1: 0}
        assert await log.starts(f"{topic}-b") == {0: 0, 1: 0, 2: 0}

    async def test_a_topic_is_described_as_it_was_made(self, log: EventLog, topic: str) -> None:
        compacted = TopicSpec(f"{topic}-c", 3, {"cleanup.policy": "compact", "retention.ms": "-1"})
        await log.create([compacted])
        described = await log.describe([topic, compacted.name, f"{topic}-absent"])
        assert {name: spec.partitions for name, spec in described.items()} == {topic: 2, compacted.name: 3}
        assert described[compacted.name].config.items() >= compacted.config.items()


class TestRead:
    async def test_a_range_is_half_open(self, log: EventLog, topic: str) -> None:
        await log.append(numbered(topic, 10))
        assert numbers(await everything(log, topic, 0, 3, 7)) == [3, 4, 5, 6]
        assert await everything(log, topic, 0, 10) == []
        assert await everything(log, topic, 0, 4, 4) == []

    async def test_without_stop_the_end_is_the_one_at_the_time_of_the_call(self, log: EventLog, topic: str) -> None:
        await log.append(numbered(topic, 5))
        reader = log.read(topic, 0, 0)
        first = numbers(await anext(reader))
        await log.append(numbered(topic, 5, first=5))
        rest = [n async for batch in reader for n in numbers(batch)]
        assert first + rest == [0, 1, 2, 3, 4]

    async def test_an_empty_partition_ends_at_once(self, log: EventLog, topic: str) -> None:
        assert await everything(log, topic, 1) == []

    async def test_many_records_come_in_batches(self, log: EventLog, topic: str) -> None:
        await log.append(numbered(topic, 5000))
        assert numbers(await everything(log, topic)) == list(range(5000))

    async def test_what_retention_took_is_named_not_skipped(self, log: EventLog, faults, topic: str) -> None:
        await log.append(numbered(topic, 10))
        await faults.truncate(topic, 0, 4)
        assert (await log.starts(topic))[0] == 4
        with pytest.raises(MissingOffsets, match=r"\[4, 10\)") as caught:
            await everything(log, topic, 0, 2, 8)
        assert (caught.value.first, caught.value.end) == (4, 10)
        assert numbers(await everything(log, topic, 0, 4)) == [4, 5, 6, 7, 8, 9]

    async def test_a_stop_beyond_the_end_is_missing_too(self, log: EventLog, topic: str) -> None:
        await log.append(numbered(topic, 3))
        with pytest.raises(MissingOffsets):
            await everything(log, topic, 0, 0, 4)

    async def test_who_reads_where_there_is_no_record_hears_that_it_gets_on(
        self, log: EventLog, faults, topic: str
    ) -> None:
        """What was aborted can be gigabytes: whoever watches would take the silence for a stall."""
        await faults.abort([Outgoing(topic, b"k", b"%d" % n, partition=0) for n in range(3)])
        beats = list[int]()
        found = log.read(topic, 0, 0, (await log.ends(topic))[0], lambda: beats.append(1))
        assert [record async for batch in found for record in batch] == []
        assert beats

    async def test_aborted_transactions_are_not_read(self, log: EventLog, faults, topic: str) -> None:
        await log.append(numbered(topic, 2))
        await faults.abort(numbered(topic, 3, first=100))
        await log.append(numbered(topic, 2, first=2))
        read = await everything(log, topic)
        assert numbers(read) == [0, 1, 2, 3]
        assert [record.offset for record in read] == [0, 1, 6, 7]

    async def test_a_tail_of_nothing_but_markers_ends(self, log: EventLog, faults, topic: str) -> None:
        await log.append(numbered(topic, 2))
        await faults.abort(numbered(topic, 3, first=100))
        assert (await log.ends(topic))[0] == 6
        assert numbers(await everything(log, topic)) == [0, 1]
        assert await everything(log, topic, 0, 3) == []

    async def test_offsets_by_time(self, log: EventLog, topic: str) -> None:
        await log.append([Outgoing(topic, None, b"", partition=0, timestamp=1_700_000_000_000 + n) for n in range(5)])
        assert await log.offsets_at(topic, 1_700_000_000_002) == {0: 2, 1: 0}
        assert await log.offsets_at(topic, 1) == {0: 0, 1: 0}
        assert await log.offsets_at(topic, 1_700_000_000_099) == {0: 5, 1: 0}

    async def test_a_topic_that_is_deleted_under_its_readers_is_named(self, log: EventLog, faults, topic: str) -> None:
        await log.append(numbered(topic, 1))
        assert (await log.ends(topic))[0] == 1
        await faults.delete(topic)
        with pytest.raises(UnknownTopic, match=topic):
            while True:  # the broker says yes before its partitions have heard of it
                await log.ends(topic)
                await asyncio.sleep(0.05)

    async def test_asking_an_absent_topic_names_it(self, log: EventLog, topic: str) -> None:
        for question in (log.ends, log.starts, lambda t: everything(log, t), lambda t: log.committed("g", t)):
            with pytest.raises(UnknownTopic):
                await question(f"{topic}-absent")


class TestGroups:
    async def test_a_new_group_begins_at_the_first_offset(self, log: EventLog, faults, topic: str) -> None:
        await log.append([*numbered(topic, 4), *numbered(topic, 2, partition=1, first=10)])
        await faults.truncate(topic, 0, 2)
        async with log.subscribe(f"{topic}-g", [topic]) as member:
            seen = await until(member, lambda seen: len(seen) >= 4)
        assert sorted(numbers(seen)) == [2, 3, 10, 11]

    async def test_what_is_committed_does_not_come_again(self, log: EventLog, topic: str) -> None:
        await log.append(numbered(topic, 4))
        async with log.subscribe(f"{topic}-g", [topic]) as member:
            await until(member, lambda seen: len(seen) == 4)
            assert await member.committed() == {(topic, 0): 0, (topic, 1): 0}
            await member.commit({(topic, 0): 3})
            assert await member.committed() == {(topic, 0): 3, (topic, 1): 0}
        assert await log.committed(f"{topic}-g", topic) == {0: 3}
        async with log.subscribe(f"{topic}-g", [topic]) as member:
            assert numbers(await until(member, bool)) == [3]

    async def test_committing_nothing_changes_nothing(self, log: EventLog, topic: str) -> None:
        async with log.subscribe("nothing", [topic]) as member:
            await member.commit({})
        assert set((await log.committed("nothing", topic)).values()) <= {0}

    async def test_a_member_that_dies_leaves_its_uncommitted_records_to_the_next(
        self, log: EventLog, topic: str
    ) -> None:
        await log.append(numbered(topic, 6))
        with pytest.raises(ZeroDivisionError):
            async with log.subscribe(f"{topic}-g", [topic]) as member:
                seen = await until(member, lambda seen: len(seen) >= 2)
                await member.commit({(topic, 0): seen[1].offset + 1})
                raise ZeroDivisionError
        async with log.subscribe(f"{topic}-g", [topic]) as member:
            assert numbers(await until(member, lambda seen: len(seen) == 4)) == [2, 3, 4, 5]

    async def test_groups_do_not_disturb_each_other(self, log: EventLog, topic: str) -> None:
        await log.append(numbered(topic, 2))
        for group in ("a", "b"):
            async with log.subscribe(f"{topic}-{group}", [topic]) as member:
                assert numbers(await until(member, lambda seen: len(seen) == 2)) == [0, 1]
                await member.commit({(topic, 0): 2})
        assert await log.committed(f"{topic}-c", topic) == {}

    async def test_a_limit_bounds_a_poll_and_loses_nothing(self, log: EventLog, topic: str) -> None:
        await log.append([*numbered(topic, 5), *numbered(topic, 5, partition=1, first=5)])
        seen: list[int] = []
        async with log.subscribe(f"{topic}-g", [topic]) as member:
            while len(seen) < 10:
                polled = [n for batch in (await member.poll(0.5, limit=3)).values() for n in numbers(batch)]
                assert len(polled) <= 3
                seen += polled
        assert sorted(seen) == list(range(10))

    async def test_seek_goes_back(self, log: EventLog, topic: str) -> None:
        await log.append(numbered(topic, 3))
        async with log.subscribe(f"{topic}-g", [topic]) as member:
            await until(member, lambda seen: len(seen) == 3)
            await member.seek((topic, 0), 1)
            assert numbers(await until(member, bool)) == [1, 2]

    async def test_a_poll_wakes_up_when_something_is_appended(self, log: EventLog, topic: str) -> None:
        async with log.subscribe(f"{topic}-g", [topic]) as member:
            waiting = asyncio.create_task(until(member, bool))
            await log.append(numbered(topic, 1))
            assert numbers(await waiting) == [0]

    async def test_nothing_new_is_an_empty_poll(self, log: EventLog, topic: str) -> None:
        async with log.subscribe(f"{topic}-g", [topic]) as member:
            assert await member.poll(0) == {}

    async def test_two_members_share_and_one_takes_over(self, log: EventLog, topic: str) -> None:
        await log.append([*numbered(topic, 2), *numbered(topic, 2, partition=1, first=10)])
        async with log.subscribe(f"{topic}-g", [topic]) as stays:
            async with log.subscribe(f"{topic}-g", [topic]) as leaves:
                await settled(stays, leaves)
                assert stays.assignment() | leaves.assignment() == {(topic, 0), (topic, 1)}
                # The group's own number: who counts what he was told would not know what he slept through.
                assert stays.generation() == leaves.generation()
                shared = stays.generation()
                (mine,) = stays.assignment()
                await stays.commit({mine: 1})
            (other,) = {(topic, 0), (topic, 1)} - {mine}
            seen = await until(stays, lambda seen: len({r.offset for r in seen if r.partition == other[1]}) == 2)
            assert stays.generation() > shared > 0
            assert {(r.partition, r.offset) for r in seen} >= {(other[1], 0), (other[1], 1), (mine[1], 1)}

    async def test_who_is_given_partitions_later_has_a_higher_generation_also_when_nobody_was_left(
        self, log: EventLog, topic: str
    ) -> None:
        """A claim that names it is told from the claims before."""
        seen = []
        for _ in range(3):
            async with log.subscribe(f"{topic}-g", [topic]) as member:
                while not member.assignment():
                    await member.poll(0.2)
                seen.append(member.generation())
        assert seen == sorted(set(seen))
        assert seen[0] > 0

    async def test_equal_partition_numbers_of_two_topics_meet_in_one_member(self, log: EventLog, topic: str) -> None:
        twin = f"{topic}-twin"
        await log.create([TopicSpec(twin, 2)])
        async with (
            log.subscribe(f"{topic}-g", [topic, twin]) as one,
            log.subscribe(f"{topic}-g", [topic, twin]) as two,
        ):
            while sorted(len(member.assignment()) for member in (one, two)) != [2, 2]:
                await one.poll(0.2)
                await two.poll(0.2)
            for member in (one, two):
                assert len({partition for _, partition in member.assignment()}) == 1

    async def test_a_zombies_commit_is_refused(self, log: EventLog, topic: str) -> None:
        await log.append([*numbered(topic, 3), *numbered(topic, 3, partition=1)])
        async with log.subscribe(f"{topic}-g", [topic]) as zombie:
            held = await until(zombie, lambda seen: len(next_offsets(seen)) == 2)
            async with log.subscribe(f"{topic}-g", [topic]) as owner:
                await settled(zombie, owner)
                (lost,) = owner.assignment()
                with pytest.raises(Fenced, match=f"{topic}-g"):
                    await zombie.commit(next_offsets(held))
                with pytest.raises(Fenced):
                    await zombie.seek(lost, 0)
                assert await log.committed(f"{topic}-g", topic) == {}
                await owner.commit({lost: 1})
        assert await log.committed(f"{topic}-g", topic) == {lost[1]: 1}

    async def test_a_commit_below_the_first_offset_is_a_loss_and_named(self, log: EventLog, faults, topic: str) -> None:
        await log.append(numbered(topic, 6))
        async with log.subscribe(f"{topic}-g", [topic]) as member:
            await until(member, lambda seen: len(seen) == 6)
            await member.commit({(topic, 0): 2})
        await faults.truncate(topic, 0, 4)
        async with log.subscribe(f"{topic}-g", [topic]) as member:
            with pytest.raises(MissingOffsets, match=r"\[4, 6\)"):
                await until(member, bool)

    async def test_aborted_transactions_are_not_delivered(self, log: EventLog, faults, topic: str) -> None:
        await log.append(numbered(topic, 1))
        await faults.abort(numbered(topic, 2, first=100))
        await log.append(numbered(topic, 1, first=1))
        async with log.subscribe(f"{topic}-g", [topic]) as member:
            assert numbers(await until(member, lambda seen: len(seen) == 2)) == [0, 1]


class TestAlone:
    async def test_who_comes_later_shuts_out_who_was_there(self, log: EventLog, topic: str) -> None:
        async with log.alone(f"{topic}-work") as first, log.alone(f"{topic}-other") as beside:
            await first.append(numbered(topic, 20))
            async with log.alone(f"{topic}-work") as second:
                assert numbers(await everything(log, topic)) == list(range(20))
                with pytest.raises(ShutOut, match=f"{topic}-work"):
                    await first.append(numbered(topic, 20, first=100))
                await second.append([*numbered(topic, 1, first=20), *numbered(topic, 1, 1, first=7)])
                assert numbers(await everything(log, topic)) == list(range(21))
                assert numbers(await everything(log, topic, 1)) == [7]
            await beside.append(numbered(topic, 1, first=21))
        assert numbers(await everything(log, topic)) == list(range(22))

    async def test_a_limit_that_was_lowered_meanwhile_is_named_alone_or_not(
        self, log: EventLog, faults, topic: str
    ) -> None:
        """Nothing of it is read, and what fits is taken as ever."""
        record = Outgoing(topic, None, b"x" * 90_000, partition=0)
        await log.append([record])
        async with log.alone(f"{topic}-work") as alone:
            for append, limit in ((log.append, 60_000), (alone.append, 56_000)):
                await faults.narrow(topic, limit)
                with pytest.raises(TooLarge, match=f"90000 bytes for {topic} is above the limit of {limit - 48_576}"):
                    while await append([record]):  # noqa: ASYNC110 - a broker takes its time
                        await asyncio.sleep(0.1)
                ends = await log.ends(topic)
                with pytest.raises(TooLarge):
                    await append([*numbered(topic, 3), record])
                assert await log.ends(topic) == ends
                await append(numbered(topic, 3))
        assert numbers([each for each in await everything(log, topic) if each.value != record.value]) == [0, 1, 2] * 2
