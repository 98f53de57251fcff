"""Owners take turns, prompts and answers share steps, and the limits hold, for any coming and going."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from gpu_workers.refused import TooLong
from gpu_workers.serve.schedule.line import PATIENCE, Line
from gpu_workers.serve.schedule.pages import PAGE
from gpu_workers.serve.schedule.portions import portions
from gpu_workers.serve.schedule.rows import Limits
from gpu_workers.serve.schedule.schedule import AGAIN_SHARE
from tests.support.steps import Row, Steps, asked

LIMITS = Limits(rows=4, pages=9, step=50, chunk=10, turn=20)
FITS = (LIMITS.pages - 1) * PAGE

row_shapes = st.fixed_dictionaries(
    {
        "owner": st.sampled_from("xyz"),
        "prompt": st.integers(1, FITS - 1),
        "limit": st.integers(1, 40),
        "same": st.booleans(),
        "adapter": st.sampled_from([None, "a", "b", "unmarked"]),
        "active_from": st.integers(0, 60),
        "public": st.sampled_from([0, 16, 40]),
        "before": st.integers(0, 30),
        "leaves": st.one_of(st.none(), st.integers(1, 30)),
    }
)


def shaped(ticket: int, shape: dict[str, Any]) -> Row:
    prompt = [0 if shape["same"] else ticket] * shape["prompt"]
    adapter = shape["adapter"]
    return asked(
        ticket,
        prompt,
        min(shape["limit"], FITS - len(prompt)),
        adapter=adapter,
        owner=shape["owner"],
        mark=None if adapter == "unmarked" else adapter,
        active_from=min(shape["active_from"], len(prompt)) if adapter else 0,
        public=min(shape["public"], len(prompt)),
    )


def most_steps(rows: list[Row]) -> int:
    """Each word costs a step of its own at most, and what is computed for it again when others have a turn between."""
    return sum(row.final_length for row in rows) * (AGAIN_SHARE + 1) // LIMITS.turn + 8 * len(rows) + 64


@settings(deadline=None)
@given(st.lists(row_shapes, max_size=14))
def test_any_mix_is_answered_within_the_pages_there_are(shapes: list[dict[str, Any]]) -> None:
    """Whatever comes, whenever it leaves: each page is accounted for, each row reads its own, and all end."""
    steps = Steps(LIMITS, words=lambda row: len(row.said) % 3)
    coming = sorted(
        ((shape["before"], shaped(ticket, shape), shape) for ticket, shape in enumerate(shapes)),
        key=lambda each: each[0],
    )
    rows = [row for _, row, _ in coming]
    leaving = {row: shape["leaves"] for _, row, shape in coming if shape["leaves"] is not None}
    left: list[Row] = []
    at, most = 0, sum(row.limit for row in rows) + 30 + most_steps(rows)
    while coming or steps.schedule.running or steps.schedule.waiting:
        assert at <= most
        while coming and coming[0][0] <= at:
            steps.submit(coming.pop(0)[1])
        steps.step()
        for row in [row for row, when in leaving.items() if when <= at and row not in steps.ended and row not in left]:
            if row not in [each for _, each, _ in coming]:
                steps.leave(row, forget=row.ticket % 2 == 0)
                left.append(row)
        at += 1
    assert set(steps.ended) | set(left) == set(rows)
    assert all(len(row.said) == row.limit for row in steps.ended)
    assert steps.schedule.pages.left == steps.schedule.pages.usable


def test_first_come_first_served() -> None:
    steps = Steps(LIMITS)
    steps.submit(*(asked(ticket, 10, 3) for ticket in range(40)))
    assert [row.ticket for row in steps.run(1_000)] == list(range(40))


def test_who_could_never_run_is_refused() -> None:
    steps = Steps(LIMITS)
    steps.submit(asked(0, FITS - 1, 1))
    with pytest.raises(TooLong, match=f"one row may have {FITS} here"):
        steps.submit(asked(1, FITS, 1))
    assert [row.ticket for row in steps.run(10)] == [0]


# What a step is made of


def test_answers_get_on_in_every_step_of_a_long_prompt() -> None:
    steps = Steps(Limits(rows=8, pages=300, step=512, chunk=32))
    short = [asked(ticket, 10, 100) for ticket in range(4)]
    steps.submit(*short)
    steps.step()
    long = asked(9, 2_000, 5)
    steps.submit(long)
    while not long.said:
        batch = steps.step()
        assert batch and {row.ticket for row in short if row.limit > len(row.said)} <= {
            feed.row.ticket for feed in batch.feeds
        }
        assert sum(feed.count for feed in batch.feeds if feed.row is long) == 32 or long.said


def test_prompts_alone_fill_a_step_together() -> None:
    steps = Steps(Limits(rows=8, pages=300, step=512, chunk=32))
    steps.submit(*(asked(ticket, 100, 5) for ticket in range(7)))
    batch = steps.step()
    assert batch and [feed.count for feed in batch.feeds] == [100] * 5 + [12]
    assert sum(feed.count for feed in batch.feeds) == 512
    batch = steps.step()
    assert batch and sorted(feed.count for feed in batch.feeds) == [1, 1, 1, 1, 1, 32]


def test_a_wide_batch_of_answers_lets_prompts_in_as_wide() -> None:
    steps = Steps(Limits(rows=64, pages=900, step=512, chunk=8))
    steps.submit(*(asked(ticket, 5, 50) for ticket in range(40)))
    steps.step()
    steps.submit(asked(99, 400, 5))
    batch = steps.step()
    assert batch and [feed.count for feed in batch.feeds if feed.row.ticket == 99] == [40]


def test_what_must_follow_is_fed_at_once() -> None:
    """A grammar knows more than one token of the answer: they go through the model together, within the step."""
    steps = Steps(Limits(rows=4, pages=300, step=64, chunk=8))
    row = asked(0, 5, 200)
    steps.submit(row)
    steps.step()
    row.said += [7] * 20
    batch = steps.step()
    assert batch and [(feed.count, feed.asks) for feed in batch.feeds] == [(21, True)]
    row.said += [7] * 100
    assert [feed.count for _ in range(2) for feed in (steps.step() or batch).feeds] == [64, 37]


def test_what_must_follow_takes_no_more_than_prompts_from_who_waits_for_a_token() -> None:
    steps = Steps(Limits(rows=4, pages=300, step=64, chunk=8))
    rows = [asked(ticket, 5, 200, owner=owner) for ticket, owner in enumerate("aab")]
    steps.submit(*rows)
    steps.step()
    rows[0].said += [7] * 60
    steps.submit(asked(9, 100, 5, owner="b"))
    for _ in range(5):
        batch = steps.step()
        assert batch and {feed.row.ticket: feed.count for feed in batch.feeds} == {0: 5, 1: 1, 2: 1, 9: 4}


def test_no_feed_crosses_the_place_from_which_an_adapter_is_active() -> None:
    steps = Steps(Limits(rows=4, pages=300))
    row = asked(0, 50, 3, adapter="a", mark="a", active_from=40)
    steps.submit(row)
    parts = []
    while batch := steps.step():
        parts += [(feed.start, feed.count, feed.adapter, feed.asks) for feed in batch.feeds]
    assert parts == [(0, 40, None, False), (40, 10, "a", True), (50, 1, "a", True), (51, 1, "a", True)]


@given(st.lists(st.tuples(st.sampled_from("xyz"), st.integers(1, 90)), min_size=1, max_size=12), st.integers(0, 120))
def test_prompts_share_the_room_of_a_step(wanted: list[tuple[str, int]], room: int) -> None:
    given_ = portions(wanted, room)
    assert all(0 <= part <= need for part, (_, need) in zip(given_, wanted, strict=True))
    assert sum(given_) == min(room, sum(need for _, need in wanted))
    owners = {owner for owner, _ in wanted}
    for owner in owners:
        mine = [(part, need) for part, (whose, need) in zip(given_, wanted, strict=True) if whose == owner]
        assert sum(part for part, _ in mine) >= min(room // len(owners), sum(need for _, need in mine))
        assert room < len(owners) or mine[0][0] > 0, "the oldest gets on"


def test_who_asks_for_most_has_a_token_in_some_step_as_who_asks_for_least_has() -> None:
    wanted = [(owner, 10 * owner + 1) for owner in range(7)]
    sums = [0] * len(wanted)
    for step in range(7):
        given_ = portions(wanted, 3, step)
        assert max(given_) == 1 and sum(given_) == 3
        sums = [had + more for had, more in zip(sums, given_, strict=True)]
    assert sums == [3] * 7


def test_a_short_prompt_does_not_wait_for_a_long_one_of_its_own_owner() -> None:
    assert portions([(None, 4_000), (None, 10)], 32) == [22, 10]
    assert portions([(None, 4_000), (None, 900), (None, 10)], 32) == [16, 6, 10]


# Turns


def test_owners_take_turns_whoever_asks_more() -> None:
    steps = Steps(LIMITS)
    steps.submit(*(asked(ticket, 1, 4, owner="flood") for ticket in range(500)))
    steps.submit(*(asked(1_000 + ticket, 1, 4, owner="small") for ticket in range(3)))
    first = [row.ticket for row in steps.run(40)][:12]
    assert {1_000, 1_001, 1_002} <= set(first)


def test_a_flood_of_one_token_questions_does_not_stop_an_answer() -> None:
    steps = Steps(LIMITS)
    steps.submit(asked(0, 1, 20, owner="small"))
    steps.submit(*(asked(ticket, 1, 1, owner="flood") for ticket in range(1, 500)))
    assert 0 in [row.ticket for row in steps.run(25)]


def test_long_rows_never_make_short_ones_wait_and_are_not_starved() -> None:
    """A page is for whom it is needed: however long others are, what short rows need is little."""
    steps = Steps(Limits())
    steps.submit(*(asked(ticket, 20_000, 30, owner="long") for ticket in range(12)))
    steps.run(5)
    steps.submit(*(asked(100 + ticket, 40, 20, owner=f"c{ticket % 4}") for ticket in range(20)))
    steps.run(80)
    assert {row.ticket for row in steps.ended} >= set(range(100, 120))
    order = [row.ticket for row in steps.run(20_000)]
    assert order == sorted(order) == list(range(12))


def test_the_owner_of_long_prompts_pays_for_them() -> None:
    """Turns alone would give who asks fifty times as much at once fifty times as much."""
    steps = Steps(Limits(rows=8, pages=900, step=512, chunk=64))
    steps.submit(*(asked(ticket, 1_000, 5, owner="long") for ticket in range(60)))
    steps.submit(*(asked(1_000 + ticket, 15, 5, owner="short") for ticket in range(3_000)))
    running = []
    for _ in range(400):
        steps.step()
        running.append(sum(row.owner == "long" for row in steps.schedule.running))
    assert sum(running) / len(running) < 1.5


def test_who_was_idle_has_saved_nothing_up() -> None:
    """An owner who comes late is first once, and has its share from then on: not all that it never asked for."""
    steps = Steps(LIMITS)
    steps.submit(*(asked(ticket, 4, 4, owner="early") for ticket in range(600)))
    steps.run(400)
    steps.submit(*(asked(1_000 + ticket, 4, 4, owner="late") for ticket in range(300)))
    ended = [row.owner for row in steps.run(60)]
    assert 0.4 < ended.count("late") / len(ended) < 0.6


def test_to_leave_and_come_back_pays_no_debt() -> None:
    steps = Steps(LIMITS)
    steps.submit(asked(0, 4, 100, owner="steady"), *(asked(ticket, 4, 20, owner="greedy") for ticket in range(1, 9)))
    while not {row.ticket for row in steps.ended} >= set(range(1, 9)):
        steps.submit(asked(100 + steps.batches, 4, 1, owner="steady"))
        steps.step()
    debt = steps.schedule._line.accounts["greedy"].spent
    steps.submit(asked(9, 4, 4, owner="greedy"))
    assert steps.schedule._line.accounts["greedy"].spent >= debt


def test_no_owner_waits_for_ever_however_many_new_ones_come() -> None:
    """Who is new has had nothing, and would always be before one who has had something."""
    steps = Steps(Limits(rows=4, pages=200))
    steps.submit(*(asked(ticket, 4, 2, owner="old") for ticket in range(40)))
    for ticket in range(1_000, 3_100):
        steps.submit(asked(ticket, 4, 2, owner=f"new-{ticket}"))
        if ticket % 4 == 0:
            steps.step()
    steps.step()
    assert sum(row.owner == "old" for row in steps.ended) >= len(steps.ended) // (2 * PATIENCE)
    assert len(steps.schedule.waiting) > 100, "else there was no need to wait"


def test_patience_is_kept_by_who_waits_for_another_owners_row() -> None:
    line: Line[Row] = Line()
    rows = [asked(ticket, 1, 1, owner=f"c{ticket}") for ticket in range(PATIENCE + 3)]
    for row in rows[:2]:
        line.opened(row.owner)
        line.join(row, row.ticket)
    line.computed(rows[0], 1_000, 0)
    line.pull(rows[0])
    for row in rows[1:]:
        if row.ticket > 1:
            line.opened(row.owner)
        line.let_in(row, 0)
        line.stopped(row, 0)
        line.closed(row.owner)
    line.opened("new")
    line.join(asked(9_998, 1, 1, owner="new"), 9_998)
    line.join(rows[0], 0)
    assert line.first() is rows[0]


@pytest.mark.parametrize("prompt", [40, 800])
def test_one_owners_rows_in_every_seat_hold_up_nobody(prompt: int) -> None:
    """Its oldest row has a right to its turn, what it runs beside that one has not."""
    steps = Steps(Limits(rows=8, pages=501, step=64, chunk=16))
    steps.submit(*(asked(ticket, prompt, 200, owner="flood") for ticket in range(16)))
    steps.run(2)
    late = [asked(100 + ticket, 10, 3, owner=f"c{ticket % 3}") for ticket in range(9)]
    steps.submit(*late)
    steps.step()
    running = Counter(row.owner for row in steps.schedule.running)
    assert running == {"flood": 5, "c0": 1, "c1": 1, "c2": 1}, "one of each, whatever more they ask"
    steps.run(12)
    assert all(late[ticket].said for ticket in range(3))
    assert steps.let_in[0] == 1
    steps.run(5_000)
    assert len(steps.ended) == 16 + 9
    assert sum(steps.computed.values()) <= 16 * (prompt + 200) + 9 * 12 + 2 * PAGE * sum(steps.let_in.values())


def test_one_owners_pages_hold_up_nobody() -> None:
    steps = Steps(Limits(rows=8, pages=101, step=64, chunk=16))
    steps.submit(*(asked(ticket, 700, 50, owner="flood") for ticket in range(8)))
    steps.run(4)
    late = asked(9, 400, 3, owner="late")
    steps.submit(late)
    assert late.final_length // PAGE > steps.schedule.pages.usable - 2 * 700 // PAGE
    steps.step()
    assert late in steps.schedule.running and steps.schedule.running[0].ticket == 0


HALL = Limits(rows=8, pages=251, step=500, chunk=32, turn=20)
CELLS = (HALL.pages - 1) * PAGE
TURN = max(HALL.turn, CELLS // AGAIN_SHARE)
"""The longest that any row here has."""
hostile = st.lists(
    st.tuples(st.sampled_from("xyz"), st.integers(1, 3_000), st.integers(1, 3_900), st.floats(0, 1)), max_size=12
)


@settings(deadline=None, max_examples=30)
@given(hostile, st.integers(1, 200), st.integers(1, 60), st.integers(0, 300))
@example([(owner, 10, 3_900, 0.0) for owner in "xyz"], 110, 20, 2)
@example([("x", 10, 1_000, 0.0)] * 3 + [("y", 3_000, 1_000, 0.5)] * 3 + [("z", 3_000, 1_000, 0.9)] * 3, 110, 50, 7)
def test_a_modest_row_is_done_within_a_few_turns(
    others: list[tuple[str, int, int, float]], prompt: int, limit: int, before: int
) -> None:
    """Three owners, however many rows, however long: each has one turn, at most, between two of the fourth's.

    A turn begins when a prompt is read, which takes a step for each `chunk` of it beside the answers of others.
    """
    steps = Steps(HALL)
    for ticket, (owner, length, most, done) in enumerate(others):
        words = min(most, CELLS - length)
        steps.submit(asked(ticket, length, words, owner=owner, said=[0] * int(done * (words - 1))))
    steps.run(before)
    turns = -(-limit // HALL.turn)
    reading = CELLS // HALL.chunk
    most = turns * (4 * (TURN + reading) + 8) + 2 * limit
    row = asked(99, prompt, limit, owner="acme")
    steps.submit(row)
    assert steps.until(row, most) <= most


def test_the_longest_answers_of_three_owners_cost_a_fourth_three_turns() -> None:
    steps = Steps(Limits(pages=1_979))
    steps.submit(*(asked(ticket, 10, 31_600, owner=f"c{ticket}") for ticket in range(3)))
    steps.run(2)
    row = asked(9, 1_100, 50, owner="acme")
    steps.submit(row)
    assert steps.until(row, 900) <= 3 * 256 + 50 + 1_100 // 32 + 8


def test_a_flood_of_full_rows_is_one_turn_and_not_one_for_each() -> None:
    """Each alone fills the memory and ends before its turn does: it never gives way, its owner does."""
    steps = Steps(HALL)
    steps.submit(*(asked(ticket, CELLS - 10, 10, owner="flood") for ticket in range(200)))
    steps.run(3)
    row = asked(999, 200, 10, owner="small")
    steps.submit(row)
    assert steps.until(row, 200) <= 4 * 10


def test_every_row_says_all_of_its_words_however_often_it_gives_way() -> None:
    steps = Steps(HALL)
    rows = [asked(ticket, 10 + 300 * (ticket % 3), 1 + 97 * ticket, owner=f"c{ticket % 4}") for ticket in range(16)]
    steps.submit(*rows)
    assert len(steps.run(50_000)) == len(rows)
    assert all(len(row.said) == row.limit for row in rows)
    assert max(steps.let_in.values()) > 1, "else nobody gave way"
    assert all(steps.let_in[row.ticket] <= 2 + row.limit // HALL.turn for row in rows)
    assert sum(steps.computed.values()) <= sum(len(row.prompt) + row.limit * AGAIN_SHARE // 2 for row in rows)


@pytest.mark.parametrize("owners", [("a", "a"), (None, None)])
def test_nobody_gives_its_turn_to_rows_of_its_own_owner(owners: tuple[str | None, str | None]) -> None:
    """To be computed again would only cost that owner."""
    steps = Steps(HALL)
    steps.submit(*(asked(ticket, 10, 3_000, owner=owner) for ticket, owner in enumerate(owners)))
    assert [row.ticket for row in steps.run(7_000)] == [0, 1]
    assert steps.let_in[0] == 1 and steps.let_in[1] <= 2, "only when there is no page left"


def test_the_oldest_of_who_had_least_keeps_its_pages() -> None:
    steps = Steps(LIMITS)
    first = asked(0, 10, FITS - 10, owner="a")
    steps.submit(first, asked(1, 10, FITS - 10, owner="b"), asked(2, 10, FITS - 10, owner="b"))
    steps.run(1_000)
    assert steps.let_in[0] <= 1 + first.limit // LIMITS.turn
    assert {row.ticket for row in steps.ended} == {0, 1, 2}
