"""What one iteration got wrong the next one gets more of."""

from __future__ import annotations

from math import isclose

from hypothesis import given
from hypothesis import strategies as st

from processors.synthetic.making import KINDS
from processors.synthetic.mix import FEWEST, LEAST, Slip, first_mix, next_mix

TOOLS = ("a", "b", "c")
MISTAKES = ("wrong tool", "wrong values", "missing call", "unwanted call", "malformed")
SLIPS = st.builds(
    Slip, st.sampled_from(KINDS), st.lists(st.sampled_from(TOOLS), max_size=2).map(tuple), st.sampled_from(MISTAKES)
)


@given(st.lists(SLIPS, min_size=1, max_size=30), st.integers(0, 40))
def test_shares_stay_shares_and_what_fails_more_gains_more(errors, right):
    mix = first_mix(TOOLS, 200, 0.7)
    after = next_mix(mix, errors, len(errors) + right)
    for before, now in ((mix.kinds, after.kinds), (mix.tools, after.tools)):
        assert isclose(sum(now.values()), 1) and min(now.values()) > LEAST / 2 and set(now) == set(before)
    failed = {name: sum(name in each.tools for each in errors) for name in TOOLS}
    gains = {name: after.tools[name] / mix.tools[name] for name in TOOLS}
    for one in TOOLS:
        for other in TOOLS:
            if failed[one] > failed[other]:
                counted = {n: sum(each.tools.count(n) for each in errors) for n in (one, other)}
                assert counted[one] < counted[other] or gains[one] >= gains[other]
    assert FEWEST <= after.examples <= 200 and after.examples >= 100


def test_without_errors_nothing_changes():
    mix = first_mix(TOOLS, 200, 0.7)
    assert next_mix(mix, [], 60) == mix


def test_a_failing_kind_and_tool_are_made_more_often_and_in_other_words():
    mix = first_mix(TOOLS, 200, 0.7)
    misread = next_mix(mix, [Slip("chained", ("b",), "missing call")] * 9, 60)
    assert misread.kinds["chained"] > 2 * mix.kinds["chained"] and misread.tools["b"] > 1.5 * mix.tools["b"]
    assert misread.kinds["single"] < mix.kinds["single"] and misread.temperature > mix.temperature
    misspelt = next_mix(mix, [Slip("single", ("a",), "wrong values")] * 9, 60)
    assert misspelt.temperature < mix.temperature
    assert "b 71%" in str(misread) and "temperature 0.85" in str(misread)
