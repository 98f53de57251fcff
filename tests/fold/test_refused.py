"""What a projection cannot take is refused by name, for this projection alone; everybody else's events are folded."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import msgspec
import pytest

from projections.projection import Projection
from rillfold.testing.driver import Driver
from schemas.codec.codec import encode
from schemas.company import TextIngested
from schemas.envelope import Event, Origin, caused_by
from schemas.memory import MemoryForgotten
from schemas.rejected import RecordRejected, Rejected
from schemas.topics import TopicNames
from streams.errors import StoreFailed, TooLarge
from streams.fold import pieces
from streams.fold.batch import NoEvent
from streams.fold.catch_up import catch_up
from streams.fold.commit import FEW
from streams.fold.dead_letter import bury, dead_letter, publish_letters
from streams.fold.failpoint import STEPS
from streams.fold.view import View
from streams.history.redrive import redrive
from streams.history.refold import held, refold
from streams.log.memory import MemoryLog
from streams.log.outgoing import to_outgoing
from streams.log.port import Outgoing, Record, TopicSpec, extents
from streams.state.changelog import refusal_of, topic_of
from streams.state.refusal import REFUSALS, Refusal
from tests.fold.test_fold import TEXTS, TOPIC, Texts, World, answered, batch, kept, text

BAD = "bad"


def breaks(state: Texts, event: Event) -> Texts:
    assert isinstance(event, TextIngested)
    if event.entity.startswith(BAD) or BAD in event.text:
        raise ValueError(f"cannot take {event.id}")
    return kept(state, event)


def bad(n: int, entity: str = "e", company: str = "acme") -> TextIngested:
    return TextIngested(id=f"i{n}", company=company, time=n, correlation=f"i{n}", entity=entity, text=f"{BAD} {n}")


def kept_refusals(world: World) -> list[Refusal]:
    """As the changelog has them."""
    found = [refusal_of(key, value) for rows in world.batches for key, value in rows]
    return [each for each in found if each is not None]


def places(refused: Sequence[Refusal]) -> list[int]:
    return [each.offset for each in refused]


BREAKS = replace(TEXTS, fold=breaks)


async def test_an_event_that_the_fold_raises_for_is_refused_and_the_row_goes_on():
    world = World(BREAKS)
    await world.folding.step(batch([text(0), bad(1), text(2), text(3, "f")]))
    assert world.rows() == {"acme/e": Texts(("0 ", "2 ")), "acme/f": Texts(("3 ",))}
    (refused,) = kept_refusals(world)
    assert (refused.topic, refused.partition, refused.offset) == (TOPIC, 0, 1)
    assert (refused.projection, refused.version, refused.company, refused.event) == ("texts", 1, "acme", "i1")
    assert (refused.reason, refused.detail) == ("raised", "ValueError: cannot take i1")
    assert [*world.shard.refused()] == [refused]


async def test_a_refusal_stands_in_the_record_batch_of_the_marker_that_passes_it():
    world = World(BREAKS)
    await world.folding.step(batch([text(0), bad(1), text(2)]))
    assert len(world.batches) == 1
    assert world.shard.next(TOPIC) == 3


@pytest.mark.parametrize("share", [1, 2, 7, 100, 5_000])
async def test_wherever_they_stand_each_is_found_and_nobody_else_is_refused(share: int):
    world, count = World(BREAKS), 5_000
    events = [bad(n) if n % share == share // 2 else text(n, f"e{n % 9}") for n in range(count)]
    await world.folding.step(batch(events))
    should = [n for n in range(count) if n % share == share // 2]
    assert places(kept_refusals(world)) == should
    assert sum(len(row.texts) for row in world.rows().values()) == count - len(should)
    assert world.shard.next(TOPIC) == count
    assert len(world.batches) <= 2 * count // FEW + 50


async def test_what_is_refused_is_not_tried_again_when_it_is_delivered_again():
    world, tried = World(), list[str]()

    def counted(state: Texts, event: Event) -> Texts:
        tried.append(event.id)
        return breaks(state, event)

    world = World(replace(TEXTS, fold=counted))
    await world.folding.step(batch([text(0), bad(1)]))
    tried.clear()
    await world.folding.step(batch([text(0), bad(1), text(2)]))
    assert tried == ["i2"]
    assert places(kept_refusals(world)) == [1]


async def test_a_row_that_fits_no_batch_is_refused_and_its_row_stays_as_it_was():
    world, half = World(), pieces.BATCH_BYTES // 2 + 100
    events = [text(0, size=half), text(1, size=half), text(2, "f"), text(3)]
    await world.folding.step(batch(events))
    assert [each[:2] for each in world.rows()["acme/e"].texts] == ["0 ", "3 "]
    assert "acme/f" in world.rows()
    (refused,) = kept_refusals(world)
    assert (refused.offset, refused.reason) == (1, "row_too_large")


async def test_text_that_is_six_times_as_long_in_json_is_refused_alone():
    world = World()
    quotes = TextIngested(id="q", company="acme", time=1, correlation="q", entity="q", text='"' * 600_000)
    await world.folding.step(batch([text(0), quotes, text(2)]))
    assert world.rows() == {"acme/e": Texts(("0 ", "2 "))}
    assert [each.reason for each in kept_refusals(world)] == ["row_too_large"]


KEYS = {
    "raises": lambda event: {}[event.entity],
    "another company's": lambda event: f"{event.entity}/x",
    "another company's with the same beginning": lambda event: f"{event.company}{event.entity}",
    "a record of ours": lambda event: f"\x00claim{event.entity}",
    "long": lambda event: f"{event.company}/{'é' * 500}",
    "not text": lambda event: 7,
    "no UTF-8": lambda event: f"{event.company}/\ud800",
    "not hashable": lambda event: [event.company],
}


@pytest.mark.parametrize("key", KEYS)
async def test_a_key_that_is_not_the_companys_own_is_refused(key: str):
    def key_of(event: Event) -> Any:
        assert isinstance(event, TextIngested)
        return KEYS[key](event) if event.entity == BAD else f"{event.company}/{event.entity}"

    world = World(replace(TEXTS, key=key_of))
    await world.folding.step(batch([text(0), bad(1, BAD), text(2)]))
    assert world.rows() == {"acme/e": Texts(("0 ", "2 "))}
    (refused,) = kept_refusals(world)
    assert refused.reason == ("raised" if key in ("raises", "not text", "not hashable") else "bad_key")


async def test_an_event_never_gets_into_a_row_of_another_company_not_even_behind_its_owner():
    world = World(replace(TEXTS, key=lambda event: event.entity))  # type: ignore[attr-defined]
    await world.folding.step(batch([text(0, "acme/x"), bad(1, "acme/x", "evil"), text(2, "acme/x")]))
    assert world.rows() == {"acme/x": Texts(("0 ", "2 "))}
    assert [(each.company, each.reason) for each in kept_refusals(world)] == [("evil", "bad_key")]


def memory_forgotten(event: Event) -> Event:
    return MemoryForgotten(**caused_by(event, 0, event.time), memory="m", reason="follows")


def follows(wrong: Any) -> Projection[Texts]:
    def react(state: Texts, event: Event, now: int) -> tuple[Event, ...]:
        assert isinstance(event, TextIngested)
        return wrong(event) if BAD in event.text else (memory_forgotten(event),)

    return replace(TEXTS, react=react)


OUTPUTS = {
    "raises": lambda event: 1 / 0,
    "nothing to go through": lambda event: None,
    "no event": lambda event: ("text",),
    "no such event": lambda event: (Event(id="1", type="t", version=1, company="acme", time=1, correlation="1"),),
    "a field of another type": lambda event: (msgspec.structs.replace(event, text=None),),
    "no UTF-8": lambda event: (msgspec.structs.replace(event, text="\ud800"),),
    "an id too long": lambda event: (msgspec.structs.replace(event, id="x" * 129),),
    "a time out of bounds": lambda event: (msgspec.structs.replace(event, time=-1),),
    "too large": lambda event: (msgspec.structs.replace(event, text="x" * (1 << 20)),),
    "another company's": lambda event: (msgspec.structs.replace(event, company="other"),),
}


@pytest.mark.parametrize("wrong", OUTPUTS)
async def test_an_event_that_leads_to_what_cannot_be_written_is_refused(wrong: str):
    """In the test kit, whose writer is the real one."""
    projection = follows(OUTPUTS[wrong])
    async with Driver(MemoryLog(), [projection]) as d:
        for n in range(3):
            await d.send(bad(n) if n == 1 else text(n))
        await d.settle()
        assert await d.digest(projection) == await d.refold(projection)
        assert [each.event for each in d.refused(projection)] == ["i1"]
        assert d.refused(projection)[0].reason in ("raised", "bad_output")
        row = d.query(projection, "acme/e")
        assert row is not None
        assert row.texts == ("0 ", "2 ")


async def test_what_the_log_finds_too_large_is_refused():
    world = World(replace(TEXTS, react=answered))

    async def publish(events: Sequence[Event]) -> None:
        for event in events:
            if "i1" in event.id:
                raise TooLarge("some-topic", 2_000_000, 1_000_000)

    world.folding._ports = world.folding._ports._replace(publish=publish)
    await world.folding.step(batch([text(0), text(1), text(2)]))
    assert world.rows() == {"acme/e": Texts(("0 ", "2 "))}
    assert [(each.offset, each.reason) for each in kept_refusals(world)] == [(1, "bad_output")]


@pytest.mark.parametrize("unsendable", [False, True])
async def test_what_follows_from_the_others_is_still_published_together(unsendable: bool):
    """One event in 256 is refused: nobody's effects become one publish each."""
    world = World(replace(TEXTS if unsendable else BREAKS, react=answered))
    published: list[str] = []
    calls = 0

    async def publish(events: Sequence[Event]) -> None:
        nonlocal calls
        calls += 1
        for event in events:
            if isinstance(event, TextIngested) and event.text.startswith(BAD):
                raise TooLarge("some-topic", 2_000_000, 1_000_000)
        published.extend(event.id for event in events)

    world.folding._ports = world.folding._ports._replace(publish=publish)
    events = [bad(n) if n % 256 == 100 else text(n, f"e{n % 9}") for n in range(2560)]
    await world.folding.step(batch(events))
    assert places(kept_refusals(world)) == [n for n in range(2560) if n % 256 == 100]
    assert published == [f"after {e.id} at {(1000 + n) * 1000}" for n, e in enumerate(events) if n % 256 != 100]
    assert calls <= 300


async def test_a_record_whose_clock_is_mad_leads_to_events_of_a_sane_time():
    seen: list[int] = []

    def react(state: Texts, event: Event, now: int) -> tuple[Event, ...]:
        seen.append(now)
        return ()

    world = World(replace(TEXTS, react=react))
    whole = batch([text(0), text(1)])
    records = [record._replace(timestamp=at) for record, at in zip(whole.records, (-1, 1 << 62), strict=True)]
    await world.folding.step(whole._replace(records=records))
    assert seen == [0, 253_402_300_799_999_999]


class Loose(msgspec.Struct, frozen=True):
    value: Any = None


def deep(levels: int) -> Any:
    value: Any = []
    for _ in range(levels):
        value = [value]
    return value


ROWS = {"too deep": lambda: deep(100_000), "no JSON": object, "no UTF-8": lambda: "\ud800", "recursion": None}


@pytest.mark.parametrize("value", ROWS)
async def test_a_row_that_cannot_be_written_is_refused(value: str):
    def loose(state: Loose, event: Event) -> Loose:
        assert isinstance(event, TextIngested)
        if BAD not in event.text:
            return Loose(event.text)
        make = ROWS[value]
        return Loose(make()) if make is not None else loose(state, event)

    world = World(replace(TEXTS, state=Loose, fold=loose, initial=lambda _: Loose()))
    await world.folding.step(batch([text(0), bad(1, "f"), text(2)]))
    assert world.rows() == {"acme/e": Loose("2 ")}
    assert [each.offset for each in kept_refusals(world)] == [1]


class Number(msgspec.Struct, frozen=True):
    n: float = 0.0


class Maybe(msgspec.Struct, frozen=True):
    n: float | None = None


class Nested(msgspec.Struct, frozen=True):
    n: tuple[dict[str, Number], ...] = ()


NOT_FINITE = {
    Number: Number,
    Maybe: Maybe,
    Nested: lambda n: Nested(({"x": Number(n)},)),
    Loose: lambda n: Loose([{"x": (n,)}]),
}


@pytest.mark.parametrize("number", [float("nan"), float("inf"), 1e308 * 10])
@pytest.mark.parametrize("state", NOT_FINITE)
async def test_a_number_that_json_does_not_have_is_refused_before_it_stands_in_a_row(state: Any, number: float):
    """It would be written as null, and read again as something else or never."""

    def numbered(_: Any, event: Event) -> Any:
        assert isinstance(event, TextIngested)
        return NOT_FINITE[state](number if BAD in event.text else float(event.text))

    world = World(replace(TEXTS, state=state, fold=numbered, initial=lambda _: state()))
    await world.folding.step(batch([text(0, "f")]))
    await world.folding.step(batch([bad(1, "f"), text(2)], start=1))
    await world.folding.step(batch([text(3, "f")], start=3))
    assert [(each.offset, each.reason) for each in kept_refusals(world)] == [(1, "bad_row")]
    assert set(world.rows()) == {"acme/e", "acme/f"}


async def test_a_row_that_cannot_be_read_again_refuses_its_own_events_only():
    def wrong(state: Texts, event: Event) -> Texts:
        assert isinstance(event, TextIngested)
        return Texts(None) if BAD in event.text else kept(state, event)  # type: ignore[arg-type]

    world = World(replace(TEXTS, fold=wrong))
    await world.folding.step(batch([bad(0, "f")]))
    await world.folding.step(batch([text(1, "f"), text(2)], start=1))
    assert [(each.offset, each.reason) for each in kept_refusals(world)] == [(1, "bad_row")]
    assert world.shard.load(["acme/e"]) == {"acme/e": Texts(("2 ",))}


class Unspeakable(Exception):
    def __str__(self) -> str:
        raise RuntimeError


@pytest.mark.parametrize("error", [ValueError("x" * 100_000), ValueError("\ud800\x00"), Unspeakable()])
async def test_what_is_said_of_it_is_short_and_can_always_be_written(error: Exception):
    def raises(state: Texts, event: Event) -> Texts:
        raise error

    world = World(replace(TEXTS, fold=raises))
    await world.folding.step(batch([text(0)]))
    (refused,) = kept_refusals(world)
    assert len(refused.detail) <= 310
    assert refused.reason in REFUSALS


async def test_memory_that_is_asked_for_without_bounds_is_the_events_fault_and_memory_that_is_gone_is_not(
    monkeypatch: pytest.MonkeyPatch,
):
    def greedy(state: Texts, event: Event) -> Texts:
        assert isinstance(event, TextIngested)
        return Texts(("x" * (1 << 60),)) if BAD in event.text else kept(state, event)

    world = World(replace(TEXTS, fold=greedy))
    await world.folding.step(batch([text(0), bad(1)]))
    assert places(kept_refusals(world)) == [1]
    monkeypatch.setattr("streams.state.refusal.ROOM_BYTES", 1 << 60)
    with pytest.raises(MemoryError):
        await world.folding.step(batch([bad(2)], start=2))
    assert world.shard.next(TOPIC) == 2


async def test_a_disk_that_fails_is_nobodys_event(monkeypatch: pytest.MonkeyPatch):
    """The named fault: a store that raises as RocksDB does when the disk is gone."""
    world = World(BREAKS)

    def fails(_: Sequence[bytes]) -> Any:
        raise StoreFailed("/disk", "IO error: No space left on device")

    monkeypatch.setattr(world.shard.store, "get", fails)
    with pytest.raises(StoreFailed, match="see to the disk"):
        await world.folding.step(batch([text(0)]))
    assert world.batches == []


async def test_each_refusal_is_said_once_with_a_name_and_a_remedy(caplog: pytest.LogCaptureFixture):
    world = World(BREAKS)
    await world.folding.step(batch([text(0), bad(1)]))
    (said,) = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert "texts v1 refuses the event at company-data/0/1 (i1 of company acme): raised" in said
    assert "rillfold projection refused texts" in said


@pytest.mark.parametrize("step", STEPS)
@pytest.mark.parametrize("passes", (1, 2))
async def test_a_crash_at_any_step_refuses_the_same_events_once(step: str, passes: int):
    async with Driver(MemoryLog(), [BREAKS], workers=2) as d:
        for n in range(40):
            await d.send(bad(n, f"e{n % 5}") if n % 3 == 1 else text(n, f"e{n % 5}"))
        await d.crash("worker-1", at=step, passes=passes)
        await d.settle()
        assert await d.digest(BREAKS) == await d.refold(BREAKS)
        assert sorted(int(each.event[1:]) for each in d.refused(BREAKS)) == [n for n in range(40) if n % 3 == 1]
        await d.crash("worker-2")
        await d.rebalance()
        await d.settle()
        assert len(d.refused(BREAKS)) == 13


async def test_a_new_version_of_the_projection_tries_again():
    log = MemoryLog()
    events = [text(0), bad(1), text(2)]
    async with Driver(log, [BREAKS]) as d:
        for event in events:
            await d.send(event)
        await d.settle()
        assert len(d.refused(BREAKS)) == 1
    mended = replace(TEXTS, version=2)
    names = TopicNames()
    parts = await held(log, BREAKS, topic_of(BREAKS, names.prefix))
    # A fold that was mended and kept its version: what was refused stays out, and the refold says the same.
    for partition, part in parts.items():
        assert (await refold(log, replace(mended, version=1), names, partition, part)) == (part.rows, ())
    shard_of = World(mended)
    await shard_of.folding.step(batch(events))
    assert shard_of.rows() == {"acme/e": Texts(tuple(event.text for event in events))}
    assert [*shard_of.shard.refused()] == []
    assert shard_of.shard.changelog != topic_of(BREAKS, names.prefix)


async def test_an_event_that_only_a_fresh_fold_does_not_take_is_a_difference_that_is_said():
    log, names = MemoryLog(), TopicNames()
    async with Driver(log, [TEXTS]) as d:
        for event in (text(0), bad(1), text(2)):
            await d.send(event)
        await d.settle()
    parts = await held(log, TEXTS, topic_of(TEXTS, names.prefix))
    (fresh,) = [one for n, part in parts.items() if (one := await refold(log, BREAKS, names, n, part)).untaken]
    assert [(each.event, each.reason) for each in fresh.untaken] == [("i1", "raised")]
    assert fresh.rows == {"acme/e": Texts(("0 ", "2 "))}


async def test_what_stands_where_another_event_was_refused_before_its_topic_was_made_anew_is_folded_again():
    log, names = MemoryLog(), TopicNames()
    async with Driver(log, [TEXTS]) as d:
        for n in range(3):
            await d.send(text(n))
        await d.settle()
    parts = await held(log, TEXTS, topic_of(TEXTS, names.prefix))
    (number,) = [n for n, part in parts.items() if part.rows]
    former = Refusal(topic=TOPIC, partition=number, offset=1, projection="texts", version=1, company="acme",
                     event="of-before", reason="raised", detail="")  # fmt: skip
    part = parts[number]._replace(refused=[former])
    assert (await refold(log, TEXTS, names, number, part)) == (part.rows, ())
    # The very event stays refused.
    part = part._replace(refused=[msgspec.structs.replace(former, event="i1")])
    assert (await refold(log, TEXTS, names, number, part)).rows == {"acme/e": Texts(("0 ", "2 "))}


async def test_a_refusal_survives_compaction_and_an_empty_disk():
    log = MemoryLog()
    async with Driver(log, [BREAKS]) as d:
        for n in range(30):
            await d.send(bad(n) if n % 10 == 3 else text(n))
        await d.settle()
        log.compact(topic_of(BREAKS, ""))
        await d.crash("worker-1")
        await d.settle()
        assert [each.event for each in d.refused(BREAKS)] == ["i3", "i13", "i23"]
        assert await d.digest(BREAKS) == await d.refold(BREAKS)


async def test_a_view_leaves_out_what_it_does_not_take():
    log = MemoryLog()
    async with Driver(log, [TEXTS]) as d:
        for event in (text(0), bad(1), text(2)):
            await d.send(event)
        assert await View(log, TopicNames(), BREAKS).catch_up() == {"acme/e": Texts(("0 ", "2 "))}


async def test_what_could_not_be_sent_before_a_changelog_was_lost_is_refused_again():
    """Read again up to the group's commit, nothing is sent twice; whether it can be written is still asked."""
    world, log = World(follows(OUTPUTS["an id too long"])), MemoryLog()
    await log.create([TopicSpec(TOPIC, 1)])
    await log.append([Outgoing(TOPIC, b"acme", encode(event), partition=0) for event in (text(0), bad(1), text(2))])
    held = {TOPIC: (await extents(log, TOPIC))[0]}
    folding = world.folding
    await catch_up(world.shard, held, log, {TOPIC: 3}, folding._ports, TopicNames(), folding._told, folding._beat)
    assert places(kept_refusals(world)) == [1]
    assert world.rows() == {"acme/e": Texts(("0 ", "2 "))}
    assert not [what for what, _ in world.done if what == "published"]


def letter_of(size: int, headers: tuple[tuple[str, Any], ...] = ()) -> RecordRejected:
    record = Record("company-data", 0, 7, 1 << 62, b"k" * size, b"v" * size, headers)
    return dead_letter(NoEvent(record, Rejected("too_large", "\ud800" + "x" * 100_000, Origin("company-data", 0, 7))))


async def test_a_letter_always_fits_and_part_of_a_record_is_not_sent_again():
    log = MemoryLog()
    await log.create([TopicSpec("company-data", 1), TopicSpec("dead-letter", 1)])
    small, large = letter_of(100, (("h", None),)), letter_of(20 << 20, (("h", None),))
    for letter in (small, large):
        to_outgoing(letter, TopicNames())
    assert (small.key, small.value, small.headers[0].value) == (b"k" * 100, b"v" * 100, None)
    assert (large.headers[0].key, large.headers[0].value) == ("rillfold-cut", b"%d" % ((40 << 20) + 1))
    await log.append([Outgoing("company-data", small.key, small.value, partition=0)] * 8)
    assert (await redrive(log, TopicNames(), [large], 1)).sent == 0
    assert (await redrive(log, TopicNames(), [small], 1)).sent == 1


@pytest.mark.parametrize(("most", "told"), [(1 << 20, 3), (20, 0)])
async def test_whatever_the_topic_of_letters_takes_who_buries_a_record_goes_on(most: int, told: int, caplog):
    log, names = MemoryLog(), TopicNames()
    await log.create([TopicSpec("dead-letter", 1, {"max.message.bytes": str(most)})])
    refused = [
        NoEvent(Record("t", 0, n, 0, b"k", b"v" * size, ()), Rejected("empty", "", Origin("t", 0, n)))
        for n, size in enumerate((10, 1_048_000, 20))
    ]
    await bury(log, names, refused)
    assert (await log.ends("dead-letter"))[0] == told
    assert [line.message.split(":")[0] for line in caplog.records] == [f"t/0/{n}" for n in range(3 - told)]


async def test_one_that_does_not_fit_among_very_many_costs_the_others_no_append_each():
    sent: list[Any] = []
    tries = 0

    async def publish(events: Sequence[Event]) -> None:
        nonlocal tries
        tries += 1
        if any(len(encode(event)) > 1 << 20 for event in events):
            raise TooLarge("dead-letter", 0, 1 << 20)
        sent.extend(events)

    refused = [
        NoEvent(Record("t", 0, n, 0, b"k", b"v" * size, ()), Rejected("empty", "", Origin("t", 0, n)))
        for n, size in enumerate([10] * 300 + [2 << 20] + [10] * 211)
    ]
    await publish_letters(refused, publish)
    assert [letter.offset for letter in sent] == [*range(512)]
    assert tries < 25


@pytest.mark.parametrize("room", [16 << 20, 1 << 20, 2_000])
async def test_where_the_topic_is_smaller_a_letter_holds_less(room: int):
    sent: list[Any] = []

    async def publish(events: Sequence[Event]) -> None:
        if any(len(encode(event)) > room for event in events):
            raise TooLarge("dead-letter", 0, room)
        sent.extend(events)

    refused = [
        NoEvent(Record("t", 0, n, 0, b"k", b"v" * size, ()), Rejected("empty", "", Origin("t", 0, n)))
        for n, size in enumerate((10, 2 << 20, 20 << 20))
    ]
    await publish_letters(refused, publish)
    assert [letter.offset for letter in sent] == [0, 1, 2]
    assert sent[0].value == b"v" * 10
