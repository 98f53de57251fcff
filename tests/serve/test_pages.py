"""Pages are never more than there are, and are read again by those alone who may, where all is the same."""

from __future__ import annotations

from itertools import combinations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from gpu_workers.serve.schedule.pages import PAGE, PUBLIC, Label, Node, Pages
from gpu_workers.serve.schedule.rows import Limits
from tests.support.steps import Row, Steps, asked

ROOM = Limits(rows=32, pages=1_001)
TEXT = list(range(2_000))


def label(number: int, sharer: str = "a") -> Label:
    return Label(sharer, None, bytes([number]))


def test_page_0_is_given_to_nobody_and_no_page_twice() -> None:
    pages = Pages(5)
    assert pages.take(5) is None
    taken = pages.take(4)
    assert taken is not None and sorted(taken) == [1, 2, 3, 4]
    assert pages.take(1) is None and pages.take(0) == []


def test_the_least_recently_used_go_first_and_a_child_before_its_parent() -> None:
    pages = Pages(5)
    chains = []
    for first in (1, 2):
        held, parent = pages.take(2), pages.root
        assert held
        for number, page in zip((first, 9), held, strict=True):
            node = pages.remember(parent, label(number), page)
            assert node
            parent = node
        chains.append(held)
        pages.give(held)
    old, new = [label(1), label(9)], [label(2), label(9)]
    pages.give(pages.share(pages.find(old)))
    taken = pages.take(1)
    assert taken == chains[1][1:] and [node.page for node in pages.find(new)] == chains[1][:1]
    assert pages.take(1) == chains[1][:1] and pages.find(new) == []
    assert [node.page for node in pages.find(old)] == chains[0]


def test_who_computed_what_was_there_holds_what_was_there() -> None:
    pages = Pages(4)
    (first,), (second,) = pages.take(1) or [], pages.take(1) or []
    node = pages.remember(pages.root, label(1), first)
    assert node and pages.remember(pages.root, label(1), second) is node
    assert pages.holders(first) == 2 and pages.holders(second) == 0 and pages.left == 2


def test_what_is_forgotten_takes_along_what_was_computed_on_it() -> None:
    pages = Pages(9)
    held, parent = pages.take(3) or [], pages.root
    for number, page in enumerate(held):
        parent = pages.remember(parent, label(number), page) or pytest.fail("it is there")
    first = pages.find([label(0)])[0]
    pages.give(held[2:])
    assert pages.left == 6 and pages.remembered == 1
    pages.forget(first)
    pages.forget(first)
    assert pages.find([label(0)]) == [] and pages.remembered == 0 and pages.left == 6
    assert pages.remember(first, label(7), held[1]) is None
    pages.give(held[:2])
    assert pages.left == 8 and pages.remembered == 0


class Holders(RuleBasedStateMachine):
    """Rows come, grow, fill pages, go: in any order."""

    def __init__(self) -> None:
        super().__init__()
        self.pages = Pages(12)
        self.rows: list[tuple[list[Node], list[int]]] = []

    @rule(numbers=st.lists(st.integers(0, 1), max_size=4), more=st.integers(0, 4))
    def comes(self, numbers: list[int], more: int) -> None:
        chain = self.pages.find(map(label, numbers))
        held = self.pages.share(chain)
        if (taken := self.pages.take(more)) is None:
            self.pages.give(held)
        else:
            self.rows.append((chain, held + taken))

    @rule(number=st.integers(0, 1), at=st.integers(0, 30))
    def fills(self, number: int, at: int) -> None:
        chain, held = self.rows[at % len(self.rows)] if self.rows else ([], [])
        if len(chain) < len(held):
            parent = chain[-1] if chain else self.pages.root
            if (node := self.pages.remember(parent, label(number), held[len(chain)])) is not None:
                held[len(chain)] = node.page
                chain.append(node)

    @rule(at=st.integers(0, 30), forget=st.booleans())
    def goes(self, at: int, forget: bool) -> None:
        if self.rows:
            chain, held = self.rows.pop(at % len(self.rows))
            if forget and chain:
                self.pages.forget(chain[0])
            self.pages.give(held)

    @invariant()
    def all_is_accounted_for(self) -> None:
        held = [page for _, pages in self.rows for page in pages]
        assert 0 not in held and len(set(held)) + self.pages.left == self.pages.usable
        assert all(self.pages.holders(page) == held.count(page) for page in range(1, self.pages.count))

    @invariant()
    def all_that_is_found_is_there(self) -> None:
        below = [self.pages.root]
        while below:
            node = below.pop()
            for each in node.children.values():
                assert each.parent is node and not each.gone and each.page != 0
                below.append(each)


TestHolders = Holders.TestCase
TestHolders.settings = settings(max_examples=50, stateful_step_count=40, deadline=None)


# What a row reads of another


def fed(steps: Steps, *rows: Row) -> list[int]:
    """How much of each was found when it was let in, one after the other."""
    for row in rows:
        steps.submit(row)
        steps.run(1_000)
    return [row.cached for row in rows]


def test_the_whole_prompt_but_its_last_token_is_found_again() -> None:
    assert fed(Steps(ROOM), *(asked(n, TEXT[:160], 4) for n in range(2))) == [0, 144]
    assert fed(Steps(ROOM), *(asked(n, TEXT[:161], 4) for n in range(2))) == [0, 160]


def test_an_answer_is_found_again_by_what_is_asked_next() -> None:
    steps = Steps(ROOM)
    first = asked(0, TEXT[:30], 40)
    fed(steps, first)
    assert fed(steps, asked(1, first.prompt + first.said + [5], 2)) == [64]


def test_one_prompt_of_sixteen_rows_is_read_once() -> None:
    """Also when all are there before the first has been read."""
    steps = Steps(ROOM)
    rows = [asked(n, [*TEXT, 5_000 + n, 7], 16, owner="a") for n in range(16)]
    steps.submit(*rows)
    steps.run(1_000)
    assert sum(steps.computed.values()) == 2_000 + 16 * 2 + 16 * 15
    assert [row.cached for row in rows] == [0] + [2_000] * 15
    assert steps.batches <= 4 + 2 + 16


def test_others_overtake_who_waits_for_a_prompt() -> None:
    steps = Steps(Limits(rows=2, pages=1_001))
    alike = [asked(n, TEXT, 4, owner="a") for n in range(2)]
    other = asked(9, [3] * 20, 4, owner="a")
    steps.submit(*alike, other)
    steps.run(1_000)
    assert [row.ticket for row in steps.ended] == [9, 0, 1] and alike[1].cached == 1_984


@pytest.mark.parametrize("at", [0, 1, 3])
def test_who_waits_for_a_row_that_leaves_reads_the_rest_itself(at: int) -> None:
    steps = Steps(ROOM)
    rows = [asked(n, TEXT, 4, owner="a") for n in range(3)]
    steps.submit(*rows)
    steps.run(at)
    steps.leave(rows[0])
    steps.run(1_000)
    assert set(steps.ended) == set(rows[1:]) and rows[1].cached == 512 // PAGE * PAGE * at
    assert rows[2].cached == 1_984 and steps.computed[2] == 16 + 3


def test_who_waits_for_a_row_that_gives_way_is_not_lost() -> None:
    steps = Steps(Limits(rows=4, pages=81, step=64, chunk=8, turn=8))
    steps.submit(asked(0, 100, 400, owner="b"), asked(1, 100, 400, owner="c"))
    steps.run(20)
    steps.submit(*(asked(n, TEXT[:700], 50, owner="a") for n in range(2, 8)))
    steps.run(10_000)
    assert sorted(row.ticket for row in steps.ended) == list(range(8))


def test_nobody_waits_long_for_another_owners_row() -> None:
    """What is public may be computed by one who has its own to wait for."""
    steps = Steps(Limits(rows=8, pages=1_001, step=64, chunk=32))
    slow = [asked(n, 1_500 + n, 4, owner="slow") for n in range(6)]
    last = asked(6, TEXT[:320], 4, owner="slow", public=320)
    steps.submit(*slow, last)
    steps.step()
    row = asked(9, TEXT[:320], 4, owner="quick", public=320)
    steps.submit(row)
    assert last in steps.schedule.running
    assert steps.until(row, 60) <= 60


def test_what_failed_is_read_by_nobody_again() -> None:
    steps = Steps(ROOM)
    public, own, bad = (asked(n, TEXT[: 32 * (n + 1)], 4, owner="a", public=32) for n in range(3))
    assert fed(steps, public, own) == [0, 32]
    steps.submit(bad)
    steps.step()
    steps.leave(bad, forget=True)
    assert bad.cached == 64
    assert fed(steps, asked(3, TEXT[:96], 4, owner="a", public=32)) == [32]


def test_what_all_may_share_is_not_lost_by_the_failure_of_one() -> None:
    steps = Steps(ROOM)
    fed(steps, asked(0, TEXT[:64], 4, owner="a", public=64))
    bad = asked(1, TEXT[:64] + [9] * 20, 4, owner="b", public=64)
    steps.submit(bad)
    steps.step()
    steps.leave(bad, forget=True)
    assert fed(steps, asked(2, TEXT[:70], 4, owner="c", public=64)) == [64]


def test_the_failure_of_the_first_to_read_what_is_public_takes_nothing_from_others() -> None:
    steps = Steps(ROOM)
    bad = asked(0, TEXT[:64] + [9] * 40, 40, owner="a", public=64)
    steps.submit(bad)
    steps.run(2)
    other = asked(1, TEXT[:64] + [8] * 40, 4, owner="b", public=64)
    steps.submit(other)
    steps.until(other, 20)
    steps.leave(bad, forget=True)
    assert fed(steps, asked(2, other.prompt, 4, owner="b", public=64)) == [96]
    assert fed(steps, asked(3, bad.prompt, 4, owner="a", public=64)) == [64]


BASE = {"adapter": None}


@pytest.mark.parametrize(
    ("first", "second", "found"),
    [
        ({"owner": "a"}, {"owner": "a"}, 160),
        ({"owner": "a"}, {"owner": "b"}, 0),
        ({"owner": None}, {"owner": "anybody"}, 0),
        ({"owner": "a", "public": 160}, {"owner": "b"}, 0),
        ({"owner": "a", "public": 100}, {"owner": "b", "public": 100}, 96),
        ({"adapter": "x", "mark": "1"}, {"adapter": "y", "mark": "1"}, 160),
        ({"adapter": "x", "mark": "1"}, {"adapter": "x", "mark": "2"}, 0),
        ({"adapter": "x", "mark": "1"}, BASE, 0),
        ({"adapter": "x", "mark": None}, {"adapter": "x", "mark": None}, 0),
        ({"adapter": "x", "mark": None, "active_from": 70}, {"adapter": "y", "mark": None, "active_from": 70}, 64),
        (BASE, {"adapter": "x", "mark": "1", "active_from": 161}, 160),
        (BASE, {"adapter": "x", "mark": "1", "active_from": 100}, 96),
        ({"adapter": "x", "mark": "1", "active_from": 100}, {"adapter": "y", "mark": "2", "active_from": 140}, 96),
        ({"adapter": "x", "mark": "1", "active_from": 100}, {"adapter": "x", "mark": "1", "active_from": 100}, 160),
        ({"adapter": "x", "mark": "1", "active_from": 100}, {"adapter": "x", "mark": "1", "active_from": 101}, 96),
        ({"adapter": "x", "mark": "1", "active_from": 60}, {"adapter": "x", "mark": "1", "active_from": 64}, 48),
    ],
)
def test_who_finds_what(first: dict[str, str], second: dict[str, str], found: int) -> None:
    rows = [asked(n, TEXT[:161], 4, **{"owner": "a"} | more) for n, more in enumerate((first, second))]
    assert fed(Steps(ROOM), *rows)[1] == found


shapes = st.fixed_dictionaries(
    {
        "owner": st.sampled_from(["acme", "globex"]),
        "mark": st.sampled_from([None, "1", "2"]),
        "active_from": st.sampled_from([0, 20, 32, 33]),
        "public": st.sampled_from([0, 16, 40]),
        "other_from": st.sampled_from([0, 10, 30, 99]),
        "waits": st.integers(0, 12),
    }
)


@settings(deadline=None)
@given(st.lists(shapes, min_size=2, max_size=12))
def test_no_page_is_shared_between_companies_or_adapters(rows: list[dict[str, int]]) -> None:
    """`Steps` looks at what each page comes from, and at who wrote it; here at who holds it, all at once."""
    steps = Steps(Limits(rows=6, pages=14, step=40, chunk=8, turn=4))
    for ticket, shape in enumerate(rows):
        at = shape.pop("other_from")
        waits = shape.pop("waits")
        row = asked(ticket, [0] * at + [1] * (60 - at) if at < 60 else [0] * 60, 6, **shape)
        row.adapter = row.mark and f"lora {row.mark}"
        steps.submit(row)
        for _ in range(waits):
            steps.step()
            held = steps.schedule.running
            for one, two in combinations(held, 2):
                for page in set(one.pages) & set(two.pages):
                    end = (one.pages.index(page) + 1) * PAGE
                    assert one.owner == two.owner or end <= min(one.public, two.public)
                    assert one.adapter == two.adapter or all(
                        each.adapter is None or end <= each.active_from for each in (one, two)
                    )
    steps.run(5_000)
    assert len(steps.ended) == len(rows)


def test_who_may_share_a_public_page_is_nobodys_name() -> None:
    row = asked(0, TEXT[:16], 1, owner=PUBLIC.value)
    assert row.label(0, PAGE) != asked(0, TEXT[:16], 1, owner="a", public=16).label(0, PAGE)
