"""Which rows of a company are measured on: each thing once, whatever stands around it."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpu_workers.train.learn.objectives import _watched
from processors.dataset.lessons import Lesson
from processors.measure.cases import held_out, watched
from processors.training.settings import TrainSettings
from schemas.company import Message, ToolUse


def lesson(story: int, turn: int = 1, said: str = "Where is order 7?", **more: Any) -> Lesson:
    call = Message(role="assistant", tool_calls=(ToolUse(name="track", arguments='{"id":7}'),))
    prompt = tuple(Message(role="user", content=f"{said} {n}") for n in range(turn))
    fields = {"agent": "a", "story": f"{story:064x}", "turn": turn, "held_out": True, "prompt": prompt, "answer": call}
    return Lesson(**fields | more)


def anything(_case: object) -> bool:
    return True


@pytest.mark.parametrize(("shown", "cases"), [(False, 1), (True, 12)])
def test_a_request_under_other_tools_is_another_one_only_where_they_are_shown(shown: bool, cases: int) -> None:
    rows = [lesson(n, tools=f'[{{"name":"t{n}"}}]') for n in range(12)]
    assert len(held_out(rows, 60, anything, shown)) == cases


def test_a_conversation_is_one_case_its_first_call_that_nobody_called_wrong() -> None:
    rows = [lesson(1, turn, said="first") for turn in (5, 3, 1)] + [lesson(2, 1, good=False), lesson(2, 3)]
    found = held_out(rows, 60, anything)
    assert sorted(len(case.prompt) for case in found) == [1, 3]


@given(st.permutations([(n, answer) for n in range(4) for answer in "ab"]))
def test_order_of_rows_changes_nothing_and_one_prompt_has_one_right_answer(order: list[tuple[int, str]]) -> None:
    def rows(some: list[tuple[int, str]]) -> list[Lesson]:
        return [lesson(2 * n + (answer == "b"), said=str(n % 2), answer=_call(answer)) for n, answer in some]

    found = held_out(rows(order), 60, anything)
    assert found == held_out(rows(sorted(order)), 60, anything) and len(found) == 2


def _call(name: str) -> Message:
    return Message(role="assistant", tool_calls=(ToolUse(name=name, arguments="{}"),))


@pytest.mark.parametrize("patience", [0, 2])
def test_what_decides_when_a_run_ends_is_not_what_it_is_measured_on(tiny_chat, patience: int) -> None:
    rows = [lesson(n, said=f"Order {n}") for n in range(40)]
    how = TrainSettings(patience=patience, measure_every=1, evaluation_rows=1000)
    seen = {row.story for row in _watched(rows, tiny_chat, how)}
    assert seen == {row.story for row in rows if watched(row) or not patience}
    assert 5 < sum(map(watched, rows)) < 35
    assert not any(watched(msgspec.structs.replace(row, held_out=False)) for row in rows)
