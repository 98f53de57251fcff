"""The gate: what was measured decides who answers for a role, and one more right answer never speaks against it."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from processors.measure.measures import CaseOutcome, Measures, Suite
from processors.training.promotion import LEAST, LEVEL, SUITES, GateFloors, Verdict, judge

FLOORS = GateFloors()


def outcomes(right: int, cases: int, malformed: int = 0) -> tuple[CaseOutcome, ...]:
    """The first `right` of them are right; those that cannot be read are among the others."""
    return tuple(CaseOutcome(id=f"case-{n}", right=n < right, malformed=n >= cases - malformed) for n in range(cases))


def measured(malformed: int = 0, **suites: tuple[int, int, int]) -> Measures:
    """Suite = right by the new version, right by what answers now, cases."""
    new = [Suite(name=name, outcomes=outcomes(new, cases, malformed)) for name, (new, _, cases) in suites.items()]
    now = [Suite(name=name, outcomes=outcomes(old, cases)) for name, (_, old, cases) in suites.items()]
    return Measures(candidate=tuple(new), served=tuple(now), against=3)


GOOD: dict[str, Any] = {"held_out": (59, 0, 60), "foreign_tools": (10, 10, 40), "irrelevance": (40, 40, 40)}


@pytest.mark.parametrize(
    ("measures", "promoted", "reason"),
    [
        (measured(**GOOD), True, "better"),
        (None, True, "not_measured"),
        (measured(), True, "not_measured"),
        (measured(irrelevance=(40, 40, 40)), True, "not_measured"),
        (measured(irrelevance=(31, 40, 40)), False, "irrelevance"),
        (measured(**GOOD | {"irrelevance": (32, 40, 40)}), True, "better"),
        (measured(**GOOD | {"irrelevance": (31, 40, 40)}), False, "irrelevance"),
        (measured(**GOOD | {"irrelevance": (31, 0, 40)}), False, "irrelevance"),
        (measured(**GOOD | {"foreign_tools": (6, 10, 40)}), True, "better"),
        (measured(**GOOD | {"foreign_tools": (5, 10, 40)}), False, "foreign_tools"),
        (measured(**GOOD | {"held_out": (60, 60, 60)}), False, "no_gain"),
        (measured(**GOOD | {"held_out": (0, 0, 60)}), False, "no_gain"),
        (measured(**GOOD | {"held_out": (59, 55, 60)}), False, "no_gain"),
        (measured(**GOOD | {"held_out": (60, 55, 60)}), True, "better"),
        (measured(**GOOD | {"held_out": (57, 60, 60)}), False, "no_gain"),
        (measured(**GOOD | {"held_out": (55, 60, 60)}), False, "worse"),
        (measured(**GOOD | {"held_out": (5, 0, LEAST)}), True, "better"),
        (measured(**GOOD | {"held_out": (4, 0, LEAST)}), False, "no_gain"),
        (measured(**GOOD | {"held_out": (0, 0, 1)}), False, "no_gain"),
        (measured(**GOOD | {"held_out": (1, 1, 1)}), False, "no_gain"),
        (measured(**GOOD | {"held_out": (5, 5, LEAST - 1)}), False, "no_gain"),
        (measured(**GOOD | {"held_out": (LEAST - 1, 0, LEAST - 1)}), True, "better"),
        (measured(**GOOD | {"held_out": (1, 0, LEAST - 1)}), True, "too_few"),
        (measured(**GOOD | {"held_out": (0, 1, LEAST - 1)}), False, "worse"),
        (measured(2, held_out=(98, 0, 100)), True, "better"),
        (measured(3, held_out=(97, 0, 100)), False, "malformed"),
    ],
)  # fmt: skip
def test_a_version_answers_for_its_role_when_it_is_better_and_does_no_harm(
    measures: Measures | None, promoted: bool, reason: str
) -> None:
    answers = None if reason == "not_measured" else 3
    beside = measures and msgspec.structs.replace(measures, against=answers)
    found = judge(beside, FLOORS, answers)
    assert (found.promoted, found.reason) == (promoted, reason), found
    assert found.detail


def test_where_no_version_answers_too_few_cases_to_tell_it_from_the_base_speak_against_none() -> None:
    first = msgspec.structs.replace(measured(**GOOD | {"held_out": (0, 0, 1)}), against=None)
    assert (judge(first, FLOORS, None).promoted, judge(first, FLOORS, None).reason) == (True, "too_few")


@pytest.mark.parametrize("suites", [GOOD, {"held_out": (3, 0, 3)}, {"irrelevance": (40, 40, 40)}, {}])
def test_over_a_version_that_could_not_be_asked_nothing_is_promoted_but_by_hand(suites: dict[str, Any]) -> None:
    found = msgspec.structs.replace(measured(**suites), served=(), comparable=False)
    verdict = judge(found, FLOORS, 3)
    assert (verdict.promoted, verdict.reason) == (False, "not_comparable")
    assert "Version 3" in verdict.detail and "rillfold adapters promote" in verdict.detail
    assert json.loads(verdict.figures)["comparable"] is False
    assert judge(found, GateFloors(on=False), 3).promoted


NOTHING: dict[str, Any] = {"held_out": (0, 0, 0)}


@pytest.mark.parametrize("suites", [None, {}, NOTHING, {"irrelevance": (40, 40, 40)}], ids=str)
def test_over_a_version_that_answers_nothing_is_promoted_unmeasured_but_by_hand(suites: dict[str, Any] | None) -> None:
    found = None if suites is None else measured(**suites)
    verdict = judge(found, FLOORS, 3)
    assert (verdict.promoted, verdict.reason) == (False, "not_measured")
    assert "version 3" in verdict.detail and "rillfold adapters promote" in verdict.detail
    first = found and msgspec.structs.replace(found, against=None)
    assert judge(first, FLOORS, None).promoted, "where none answers, nothing speaks against it"
    assert judge(found, GateFloors(on=False), 3).promoted


def test_cases_that_only_the_new_version_was_asked_measure_nothing_beside_one_that_answers() -> None:
    alone = msgspec.structs.replace(measured(**GOOD), served=())
    assert judge(alone, FLOORS, 3).reason == "not_measured"


def test_a_version_that_answers_since_the_run_began_is_not_replaced_by_what_was_not_measured_beside_it() -> None:
    verdict = judge(measured(**GOOD), FLOORS, 4)
    assert (verdict.promoted, verdict.reason) == (False, "not_comparable")
    assert "Version 4" in verdict.detail and "rillfold adapters promote" in verdict.detail
    gone = judge(measured(**GOOD), FLOORS, None)
    assert (gone.promoted, gone.reason) == (False, "not_comparable"), "the base answers now, and was not asked"
    assert "Version 3 answers no more" in gone.detail
    unasked = msgspec.structs.replace(measured(**GOOD), served=(), comparable=False)
    assert "Version 4 answers since" in judge(unasked, FLOORS, 4).detail


@pytest.mark.parametrize(("in_prompt", "reason", "cases"), [(False, "better", 100), (True, "malformed", 140)])
def test_calls_for_others_tools_have_to_be_read_where_tools_stand_in_the_prompt(
    in_prompt: bool, reason: str, cases: int
) -> None:
    found = measured(**GOOD)
    odd = Suite(name="foreign_tools", outcomes=outcomes(10, 40, malformed=30))
    candidate = tuple(odd if suite.name == odd.name else suite for suite in found.candidate)
    verdict = judge(msgspec.structs.replace(found, candidate=candidate, tools_in_prompt=in_prompt), FLOORS, 3)
    assert verdict.reason == reason
    assert json.loads(verdict.figures)["malformed"] == {"answers": 30 if in_prompt else 0, "cases": cases}


def test_where_the_gate_is_off_everything_is_promoted_and_still_told() -> None:
    found = judge(measured(**GOOD | {"held_out": (0, 60, 60)}), GateFloors(on=False), 3)
    assert (found.promoted, found.reason) == (True, "off")
    assert json.loads(found.figures)["suites"]["held_out"]["lost"] == 60


def test_the_verdict_has_its_numbers_and_names_all_that_speaks_against() -> None:
    found = judge(measured(**GOOD | {"held_out": (50, 60, 60), "irrelevance": (30, 40, 40)}), FLOORS, 3)
    assert found.reason == "irrelevance"
    assert "75.0% of 40" in found.detail and "(0 won, 10 lost)" in found.detail
    figures = json.loads(found.figures)
    assert figures["against"] == 3 and figures["floors"] == {"irrelevance": 0.8, "malformed": 0.02}
    own = figures["suites"]["held_out"]
    assert (own["cases"], own["paired"], own["won"], own["lost"]) == (60, 60, 0, 10)
    assert own["loss_p"] == 1 / 1024 and own["gain_p"] == 1.0


def test_only_cases_that_both_were_asked_are_compared() -> None:
    mine = Suite(name="held_out", outcomes=outcomes(30, 30))
    other = tuple(msgspec.structs.replace(each, id=f"other-{each.id}") for each in outcomes(0, 30))
    found = judge(Measures(candidate=(mine,), served=(Suite(name="held_out", outcomes=other),)), FLOORS, None)
    assert (found.promoted, found.reason) == (True, "too_few"), "nothing was compared"
    assert json.loads(found.figures)["suites"]["held_out"]["paired"] == 0


SHARES = st.lists(st.tuples(st.booleans(), st.booleans(), st.booleans()), max_size=30)
MEASURED = st.fixed_dictionaries(dict.fromkeys(SUITES, SHARES))


def of(cases: dict[str, list[tuple[bool, bool, bool]]], against: int | None = None) -> Measures:
    """Of each case: right now, right by the new version, and where it is not, whether it can be read."""
    new, now = [], []
    for name, each in cases.items():
        ids = [f"{name}-{n}" for n in range(len(each))]
        new.append(
            Suite(
                name=name,
                outcomes=tuple(
                    CaseOutcome(id=id_, right=right, malformed=odd and not right)
                    for id_, (_, right, odd) in zip(ids, each, strict=True)
                ),
            )
        )
        now.append(
            Suite(
                name=name,
                outcomes=tuple(CaseOutcome(id=i, right=was) for i, (was, *_) in zip(ids, each, strict=True)),
            )
        )
    return Measures(candidate=tuple(new), served=tuple(now), against=against)


@given(MEASURED, st.data(), st.sampled_from((None, 3)))
def test_one_more_right_answer_never_turns_a_promoted_version_away(
    cases: dict[str, Any], data: st.DataObject, answers: int | None
) -> None:
    wrong = [(name, n) for name, each in cases.items() for n, (_, right, _) in enumerate(each) if not right]
    before = judge(of(cases, answers), FLOORS, answers)
    if not wrong:
        return
    name, n = data.draw(st.sampled_from(wrong))
    was, _, odd = cases[name][n]
    better = {**cases, name: [*cases[name][:n], (was, True, odd), *cases[name][n + 1 :]]}
    assert judge(of(better, answers), FLOORS, answers).promoted >= before.promoted


@given(MEASURED)
def test_whatever_was_measured_there_is_a_verdict_and_the_same_one_each_time(cases: dict[str, Any]) -> None:
    found = judge(of(cases), FLOORS, None)
    assert found == judge(of(cases), FLOORS, None) and isinstance(found, Verdict)
    figures = json.loads(found.figures)
    own = figures["suites"].get("held_out")
    if found.promoted and own and own["paired"] >= LEAST:
        assert own["gain_p"] < LEVEL and own["won"] > own["lost"]
    same = {name: [(was, was, odd) for was, _, odd in each] for name, each in cases.items()}
    if len(cases["held_out"]) >= LEAST:
        assert not judge(of(same), FLOORS, None).promoted, "an equal one does not take over"
    assert not judge(of(same, 3), FLOORS, 3).promoted, "nor where there are few cases, a version's place"
