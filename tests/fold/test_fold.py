"""The fold as a function: batches, markers, pieces, gaps. No broker, no disk."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from functools import reduce
from typing import Any

import msgspec
import pytest

from projections.projection import Projection
from schemas.codec.codec import encode
from schemas.company import TextIngested
from schemas.envelope import Event
from schemas.topics import TopicNames
from streams.errors import NotContiguous, OwnershipLost
from streams.fold import pieces
from streams.fold.batch import Batch
from streams.fold.commit import Ports
from streams.fold.failpoint import FailPoint
from streams.fold.folding import Folding
from streams.fold.shard import Shard
from streams.log.memory import MemoryLog
from streams.log.port import Extent, Record
from streams.state.changelog import Loss, Rows, loss_of, marker_of
from streams.state.store import MemoryStore

TOPIC = "company-data"


class Texts(msgspec.Struct, frozen=True):
    texts: tuple[str, ...] = ()


def kept(state: Texts, event: Event) -> Texts:
    assert isinstance(event, TextIngested)
    return state if event.text in state.texts else Texts((*state.texts, event.text))


def each_time(state: Texts, event: Event) -> Texts:
    assert isinstance(event, TextIngested)
    return Texts((*state.texts, event.text))


def answered(state: Texts, event: Event, now: int) -> tuple[Event, ...]:
    assert isinstance(event, TextIngested)
    return (msgspec.structs.replace(event, id=f"after {event.id} at {now}"),)


TEXTS = Projection(
    name="texts",
    version=1,
    topics=(TOPIC,),
    state=Texts,
    key=lambda event: f"{event.company}/{event.entity}" if isinstance(event, TextIngested) else None,
    initial=lambda _: Texts(),
    fold=kept,
)


class World:
    """Keeps what a commit does, in order."""

    def __init__(self, projection: Projection[Any] = TEXTS, accepted: Mapping[str, int] | None = None) -> None:
        self.done: list[tuple[str, Any]] = []
        self.batches: list[Rows] = []
        self.acknowledged = asyncio.Event()
        self.acknowledged.set()
        self.folding = Folding([projection], TopicNames(), Ports(self._publish, self._append, FailPoint()), accepted)
        self.shard: Shard[Any] = self.folding.open(projection, 0, MemoryStore())
        self.shard.restored()
        self.folding.begin(TOPIC, 0, Extent(0, 0))

    async def _publish(self, events: Sequence[Event]) -> None:
        self.done.append(("published", [event.id for event in events]))

    async def _append(self, topic: str, partition: int, rows: Rows) -> int:
        assert not self.batches or self.shard.store.get([self.batches[-1][-1][0]]) == [self.batches[-1][-1][1]]
        await self.acknowledged.wait()
        self.done.append(("appended", len(rows)))
        self.batches.append(rows)
        assert pieces.bytes_of(rows) <= pieces.BATCH_BYTES
        return sum(len(batch) for batch in self.batches) - 1

    def rows(self) -> dict[str, Texts]:
        return dict(self.shard.rows())


def text(n: int, entity: str = "e", size: int = 0) -> TextIngested:
    fields = {"id": f"i{n}", "company": "acme", "time": n, "correlation": f"i{n}"}
    return TextIngested(**fields, entity=entity, text=f"{n} " + "x" * size)


def batch(events: Iterable[Event | bytes], start: int = 0, next_: int | None = None) -> Batch:
    values = [event if isinstance(event, bytes) else encode(event) for event in events]
    records = [Record(TOPIC, 0, start + n, 1000 + n, b"acme", value, ()) for n, value in enumerate(values)]
    return Batch(TOPIC, 0, start, start + len(records) if next_ is None else next_, records)


async def test_rows_are_the_reduction_of_the_events():
    world, events = World(), [text(n, f"e{n % 3}") for n in range(20)]
    await world.folding.step(batch(events))
    for entity in ("e0", "e1", "e2"):
        assert world.rows()[f"acme/{entity}"] == reduce(kept, [e for e in events if e.entity == entity], Texts())


async def test_the_marker_closes_the_batch_and_says_where_to_go_on():
    world = World()
    await world.folding.step(batch([text(0), text(1)], next_=5))
    marker = marker_of(*world.batches[0][-1])
    assert marker is not None
    assert (marker.topic, marker.partition, marker.next) == (TOPIC, 0, 5)
    assert world.shard.next(TOPIC) == 5


async def test_what_is_delivered_again_is_skipped():
    world, events = World(), [text(n) for n in range(4)]
    await world.folding.step(batch(events[:3]))
    await world.folding.step(batch(events[:3]))
    assert len(world.batches) == 1
    await world.folding.step(batch(events))
    assert world.rows()["acme/e"].texts == tuple(event.text for event in events)


async def test_what_stands_below_the_start_of_its_batch_is_not_folded():
    """Whoever delivered it was at another place than it thought."""
    world, events = World(replace(TEXTS, fold=each_time)), [text(n) for n in range(6)]
    await world.folding.step(batch(events[:4]))
    await world.folding.step(batch(events)._replace(start=4))
    assert world.rows()["acme/e"].texts == tuple(event.text for event in events)


async def test_records_that_are_missing_in_between_are_not_folded_over():
    world = World()
    await world.folding.step(batch([text(0)]))
    with pytest.raises(NotContiguous, match="folded up to 1, but the batch at hand begins at 3"):
        await world.folding.step(batch([text(3)], start=3))
    assert world.shard.next(TOPIC) == 1


async def begun(world: World, events: Sequence[Event], size: int) -> list[asyncio.Task[None]]:
    """Steps of so many events each, all under way at once; the log has acknowledged nothing yet."""
    world.acknowledged.clear()
    starts = range(0, len(events), size)
    steps = [asyncio.ensure_future(world.folding.step(batch(events[n : n + size], n))) for n in starts]
    await asyncio.sleep(0.01)
    assert world.batches == []
    return steps


async def test_batches_that_are_under_way_at_once_commit_in_the_order_of_the_log():
    world, events = World(), [text(n) for n in range(30)]
    steps = await begun(world, events, 5)
    world.acknowledged.set()
    await asyncio.gather(*steps)
    assert world.rows()["acme/e"].texts == tuple(event.text for event in events)
    markers = [marker_of(*rows[-1]) for rows in world.batches]
    assert [marker.next for marker in markers if marker is not None] == [5, 10, 15, 20, 25, 30]


async def test_after_a_batch_that_failed_the_next_is_not_folded_over_the_gap():
    world = World()
    first, second = await begun(world, [text(n) for n in range(10)], 5)
    first.cancel()
    world.acknowledged.set()
    with pytest.raises(NotContiguous, match="folded up to 0, but the batch at hand begins at 5"):
        await second
    assert world.batches == []


async def test_a_batch_that_waits_for_its_turn_while_its_shard_is_claimed_anew_is_left_to_the_next_delivery():
    world = World()
    first, second = await begun(world, [text(n) for n in range(10)], 5)
    world.folding.claim(world.shard.changelog, 0)
    world.acknowledged.set()
    with pytest.raises(OwnershipLost):
        await first
    await second
    assert list(world.shard.rows()) == []


async def test_what_follows_is_published_before_the_rows_are_written():
    world = World(Projection(**{**vars(TEXTS), "react": answered}))
    await world.folding.step(batch([text(0), text(1)]))
    assert world.done == [("published", ["after i0 at 1000000", "after i1 at 1001000"]), ("appended", 2)]


async def test_an_event_that_changes_nothing_leads_to_nothing():
    world = World(Projection(**{**vars(TEXTS), "react": answered}))
    await world.folding.step(batch([text(0), text(0)]))
    assert world.done[0] == ("published", ["after i0 at 1000000"])


async def test_poison_is_published_as_it_came_and_blocks_nobody():
    world = World()
    await world.folding.step(batch([text(0), b"\xff\xff", text(1)]))
    assert world.done[0][0] == "published"
    assert len(world.rows()["acme/e"].texts) == 2


async def test_rows_too_many_for_one_record_batch_are_written_in_pieces_that_each_count():
    world, size = World(), pieces.BATCH_BYTES // 10
    events = [text(n, f"e{n}", size) for n in range(25)]
    await world.folding.step(batch(events, next_=30))
    assert len(world.batches) > 2
    markers = [marker_of(*rows[-1]) for rows in world.batches]
    nexts = [marker.next for marker in markers if marker is not None]
    assert nexts == sorted(set(nexts)) and nexts[-1] == 30
    assert len(world.rows()) == 25


async def test_a_source_whose_unfolded_start_is_deleted_is_refused():
    world = World()
    await world.folding.step(batch([text(0)]))
    assert world.folding.begin(TOPIC, 0, Extent(7, 9)) is None
    assert "is folded up to 1 and holds [7, 9)" in str(world.folding.lost[TOPIC, 0])


async def look(world: World, extent: Extent, now: Extent | None = None, read_to: int | None = None) -> Extent:
    """`now`: what it holds by the time that it is our turn."""

    async def ask() -> Extent:
        return now or extent

    return await world.folding.look(TOPIC, 0, extent, ask, read_to)


async def looked(world: World, extent: Extent, anew: Mapping[str, int] | None = None) -> int | None:
    """Where the source goes on. `anew`: by a worker that starts with these acceptances on the rows of the last."""
    if anew is not None:
        ports = Ports(world._publish, world._append, FailPoint())
        world.folding = Folding([world.shard.projection], TopicNames(), ports, anew)
        world.shard = world.folding.open(world.shard.projection, 0, world.shard.store)
        world.shard.restored()
    await look(world, extent)
    return world.folding.begin(TOPIC, 0, extent)


async def test_a_source_that_was_seen_to_be_lost_is_not_passed_because_it_has_grown_since():
    world, word = World(), {f"{TOPIC}/0@3": 0}
    await world.folding.step(batch([text(n) for n in range(3)]))
    assert await looked(world, Extent(0, 1)) is None
    assert await looked(world, Extent(0, 4)) is None, "a rebalance"
    assert await looked(world, Extent(0, 4), {}) is None, "a restart"
    why = str(world.folding.lost[TOPIC, 0])
    assert "is folded up to 3 and holds [0, 4): it held [0, 1) when that was seen, and its topic was made anew" in why
    assert "at the first offset that was written since (not above 1)" in why
    assert await looked(world, Extent(0, 5), word) == 0, "accepted as it was named"
    assert {loss_of(key, value) for key, value in world.batches[-1]} >= {Loss(TOPIC, 0, 3, 0)}
    await world.folding.step(batch([text(n) for n in range(10, 13)]))
    assert await looked(world, Extent(0, 5), word) == 3, "it holds for that one loss"


@pytest.mark.parametrize("grown", [False, True])
async def test_a_word_answers_one_loss_and_not_the_next_at_the_same_offset(
    grown: bool, caplog: pytest.LogCaptureFixture
):
    """A topic that is made anew each night with as many records. `grown`: beyond them, before a worker looked."""
    world, word = World(), {f"{TOPIC}/0@3": 0}
    again = word | {f"{TOPIC}/0@3#2": 0}
    await world.folding.step(batch([text(n) for n in range(3)]))
    assert await looked(world, Extent(0, 5), word) == 0, "set before it was seen"
    await world.folding.step(batch([text(n) for n in range(10, 13)]))
    assert await looked(world, Extent(0, 3), word) == 3
    assert f"RILLFOLD_ACCEPT_LOSS's {TOPIC}/0@3 was there when a loss was answered" in caplog.text
    assert f"lost there once more, say {TOPIC}/0@3#2" in caplog.text
    if not grown:
        assert await looked(world, Extent(0, 2), word) is None
        assert f"""RILLFOLD_ACCEPT_LOSS='{{"{TOPIC}/0@3#2": 0}}'""" in str(world.folding.lost[TOPIC, 0]).replace(
            "OFFSET", "0"
        )
        assert await looked(world, Extent(0, 9), word) is None
    assert await looked(world, Extent(0, 9), again) == 0
    assert {loss_of(key, value) for key, value in world.batches[-1]} >= {Loss(TOPIC, 0, 3, 0, 2)}
    await world.folding.step(batch([text(n) for n in range(20, 23)]))
    assert await looked(world, Extent(0, 9), again) == 3


async def test_a_word_for_a_second_loss_is_also_the_first_of_rows_that_knew_none():
    """What stands beside it in the settings was for other rows of that source, and does not come after it."""
    world, words = World(), {f"{TOPIC}/0@3": 1, f"{TOPIC}/0@3#2": 0}
    await world.folding.step(batch([text(n) for n in range(3)]))
    assert await looked(world, Extent(0, 2), words) == 0
    await world.folding.step(batch([text(n) for n in range(10, 13)]))
    assert await looked(world, Extent(0, 3), words) == 3


async def test_a_word_that_was_asked_for_beside_the_one_that_answered_answers_nothing_later():
    """The message names where each marker stands, and where those stand who have read further."""
    world = World()
    await world.folding.step(batch([text(n) for n in range(3)]))
    assert world.folding.begin(TOPIC, 0, Extent(0, 1), read_to=5) is None
    (words,) = re.findall(r"LOSS='(.*?)'", str(world.folding.lost[TOPIC, 0]))
    asked = json.loads(words.replace("OFFSET", "0"))
    assert asked == {f"{TOPIC}/0@3": 0, f"{TOPIC}/0@5": 0}
    assert await looked(world, Extent(0, 5), asked) == 0
    await world.folding.step(batch([text(n) for n in range(10, 15)]))
    assert await looked(world, Extent(0, 5), asked) == 5
    assert await looked(world, Extent(0, 2), asked) is None
    assert f'"{TOPIC}/0@5#2": OFFSET' in str(world.folding.lost[TOPIC, 0])


async def test_a_source_that_is_lost_before_anything_of_it_was_folded_stands_still_and_is_let_go_on():
    """A batch is in hand, and no marker stands yet."""
    world = World()
    world.shard = world.folding.open(world.shard.projection, 0, MemoryStore())
    world.shard.restored()
    assert world.folding.begin(TOPIC, 0, Extent(0, 3)) == 0
    assert await look(world, Extent(0, 1), read_to=3) == Extent(0, 1)
    assert await looked(world, Extent(0, 1), {}) is None
    assert await looked(world, Extent(0, 1), {f"{TOPIC}/0@0": 0}) == 0


async def test_what_was_asked_before_others_folded_on_says_nothing_of_the_source():
    """A rebalance asks what all sources hold, and what was fetched before is folded meanwhile. Seed 405 of the kill
    script stood still so, as if its topics had been made anew."""
    world = World()
    await world.folding.step(batch([text(n) for n in range(3)]))
    assert await look(world, Extent(0, 2), now=Extent(0, 5)) == Extent(0, 5)
    assert world.shard.missing(TOPIC) is None
    assert await looked(world, Extent(0, 5)) == 3


async def test_a_word_that_does_not_apply_is_named_beside_what_stands_still(caplog: pytest.LogCaptureFixture):
    world = World()
    await world.folding.step(batch([text(n) for n in range(3)]))
    assert await looked(world, Extent(0, 1), {f"{TOPIC}/0@2": 0, f"{TOPIC}/0@3": 9, "no-topic/0@3": 0}) is None
    why = str(world.folding.lost[TOPIC, 0])
    assert f'Its "{TOPIC}/0@2": 0 does not apply.' in why and f'Its "{TOPIC}/0@3": 9 does not apply.' in why
    assert "RILLFOLD_ACCEPT_LOSS names no-topic/0@3: no topic that is folded here" in caplog.text


async def test_a_source_that_was_deleted_is_another_when_it_is_there_again():
    world = World()
    await world.folding.step(batch([text(n) for n in range(3)]))
    await world.folding.catch_up([world.shard], MemoryLog(), "group")
    assert await looked(world, Extent(0, 4)) is None
    assert await looked(world, Extent(0, 4), {f"{TOPIC}/0@3": 0}) == 0


async def test_a_topic_that_has_grown_beyond_the_marker_before_anybody_looked_is_begun_where_an_operator_says():
    world, word = World(), {f"{TOPIC}/0@3": 0}
    await world.folding.step(batch([text(n) for n in range(3)]))
    assert await looked(world, Extent(0, 4), word) == 0
    await world.folding.step(batch([text(n) for n in range(10, 13)]))
    assert await looked(world, Extent(0, 4), word) == 3


async def test_what_was_refused_of_records_that_are_gone_says_nothing_of_those_that_stand_there_now():
    def fold(state: Texts, event: Event) -> Texts:
        if isinstance(event, TextIngested) and event.text.startswith("1 "):
            raise ValueError("refused")
        return kept(state, event)

    world = World(replace(TEXTS, fold=fold))
    await world.folding.step(batch([text(n) for n in range(3)]))
    assert [each.offset for each in world.shard.refused()] == [1]
    assert await looked(world, Extent(0, 4), {f"{TOPIC}/0@3": 2}) == 2
    assert [each.offset for each in world.shard.refused()] == [1], "that record still stands there"
    await world.folding.step(batch([text(12)], start=2))
    assert await looked(world, Extent(0, 1), {f"{TOPIC}/0@3#2": 0}) == 0
    assert [*world.shard.refused()] == []
    assert (b"\x00refused/" + f"{TOPIC}/0/1".encode(), None) in [row for rows in world.batches for row in rows]


async def test_records_that_were_brought_back_are_folded_on_by_an_operators_word():
    world = World()
    await world.folding.step(batch([text(0)]))
    assert await looked(world, Extent(7, 9)) is None
    assert await looked(world, Extent(0, 9), {}) is None
    assert await looked(world, Extent(0, 9), {f"{TOPIC}/0@1": 1}) == 1
    assert not world.folding.lost


async def test_a_lost_source_is_not_passed_once_the_batches_in_hand_have_moved_the_marker():
    world = World()
    await world.folding.step(batch([text(0)]))
    await look(world, Extent(0, 3), read_to=5)
    await world.folding.step(batch([text(n) for n in range(1, 5)], start=1))
    assert await looked(world, Extent(0, 6), {}) is None
    assert await looked(world, Extent(0, 6), {f"{TOPIC}/0@5": 0}) == 0


async def test_a_source_that_lost_its_end_is_refused_while_batches_are_still_in_hand():
    """They may bring the marker beyond the new end, and what is written there since would be passed."""
    world = World()
    await world.folding.step(batch([text(0)]))
    assert world.folding.begin(TOPIC, 0, Extent(0, 3), read_to=5) is None
    assert "is folded up to 5 and holds [0, 3)" in str(world.folding.lost[TOPIC, 0])


async def test_an_accepted_loss_is_written_down_and_holds_for_that_one_alone():
    world = World(accepted={f"{TOPIC}/0@1": 7, f"{TOPIC}/0@8": 99})
    await world.folding.step(batch([text(0)]))
    await look(world, Extent(7, 9))
    assert world.folding.begin(TOPIC, 0, Extent(7, 9)) == 7
    assert {loss_of(key, value) for key, value in world.batches[-1]} >= {Loss(TOPIC, 0, 1, 7)}
    await world.folding.step(batch([text(7)], start=7))
    await look(world, Extent(0, 3))
    assert world.folding.begin(TOPIC, 0, Extent(0, 3)) is None, "99 is not in the log either"


def test_a_projection_that_begins_above_the_first_record_says_so(caplog: pytest.LogCaptureFixture):
    world = World()
    caplog.clear()
    world.shard = world.folding.open(world.shard.projection, 0, MemoryStore())
    world.shard.restored()
    assert world.folding.begin(TOPIC, 0, Extent(7, 9)) == 7
    assert world.folding.begin(TOPIC, 0, Extent(7, 9)) == 7
    (said,) = caplog.messages
    assert f"begins on {TOPIC}/0 at 7" in said
