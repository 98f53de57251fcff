"""A worker that comes late gets its share, and a group in which everybody has his is left alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import SimpleNamespace

from faust.assignor.client_assignment import ClientAssignment
from faust.assignor.copartitioned_assignor import CopartitionedAssignor
from hypothesis import given
from hypothesis import strategies as st

from streams.owner.faust_seam import RowAssignor

TOPICS = ["source", "rows-changelog"]
Members = Mapping[str, ClientAssignment]


def assigned(before: Members, members: Sequence[str], count: int, replicas: int) -> Members:
    """As a leader does it: what each had, by Faust's own assignor, and its last step, which is ours."""
    none: Members = {name: ClientAssignment(actives={}, standbys={}) for name in members}
    had = {name: (none | dict(before))[name].copartitioned_assignment(set(TOPICS)) for name in members}
    given_out = CopartitionedAssignor(TOPICS, had, count, replicas).get_assignment()
    found = {name: ClientAssignment(actives={}, standbys={}) for name in members}
    for name, each in given_out.items():
        found[name].add_copartitioned_assignment(each)
    assignor = RowAssignor.__new__(RowAssignor)
    assignor._table_manager = SimpleNamespace(data={})
    shared: Members = assignor._global_table_standby_assignments(found, dict.fromkeys(TOPICS, count))
    return shared


def held(members: Members) -> dict[str, set[int]]:
    return {name: set(each.actives["source"]) for name, each in members.items()}


def test_of_three_that_share_four_partitions_none_has_none() -> None:
    two = assigned({}, ["a", "b"], 4, 1)
    assert sorted(map(len, held(two).values())) == [2, 2]
    three = assigned(two, ["a", "b", "c"], 4, 1)
    assert sorted(map(len, held(three).values())) == [1, 1, 2]
    assert sum(len(held(two)[name] & held(three)[name]) for name in "ab") == 3, "no more moves than has to"
    assert held(assigned(three, ["a", "b", "c"], 4, 1)) == held(three)


@given(
    st.lists(st.sets(st.sampled_from("abcdefg"), min_size=1), min_size=1, max_size=8), st.integers(1, 12), st.booleans()
)
def test_whoever_comes_and_goes_each_has_a_share_and_each_partition_one_owner(
    groups: list[set[str]], count: int, copied: bool
) -> None:
    now: Members = {}
    for group in groups:
        now = assigned(now, sorted(group), count, int(copied))
        own = held(now)
        assert sorted(partition for each in own.values() for partition in each) == list(range(count))
        assert min(map(len, own.values())) >= count // len(group)
        copies = [partition for each in now.values() for partition in each.standbys["source"]]
        assert len(copies) == len(set(copies)), "one copy of each"
        for each in now.values():
            assert not set(each.actives["source"]) & set(each.standbys["source"])
            assert sorted(each.actives["source"]) == sorted(each.actives["rows-changelog"])
            assert sorted(each.standbys["source"]) == sorted(each.standbys["rows-changelog"])
        if copied:  # as our workers have it; without copies Faust itself moves some
            assert held(assigned(now, sorted(group), count, 1)) == own, "nobody comes, and nothing moves"
