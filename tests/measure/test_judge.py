"""A judge is believed where it says the same in both orders; one that is down costs its own line and nothing else."""

from __future__ import annotations

import pytest

from gpu_workers.evaluate.asking import Answered, Side
from gpu_workers.evaluate.judge import HttpJudge, SideBySide, judge, pairs
from gpu_workers.evaluate.measure import Measured
from gpu_workers.evaluate.told import asked_judge, metrics
from processors.errors import ModelAway
from processors.measure.cases import Case
from processors.measure.judging import counted, preferred
from schemas.company import Message
from tests.support.chatting import answering

PAIRS = [
    SideBySide("Who?", "A long and good answer.", "No.", ""),
    SideBySide("Why?", "So.", "Because it is like that.", "Because."),
]


def longer(question: str) -> str:
    """The longer one is better, says this judge."""
    a, b = question.partition("Answer A:\n")[2].partition("\n\nAnswer B:\n")[::2]
    return "A" if len(a) > len(b.partition("\n\nSay one letter")[0]) else "B."


def test_both_orders_are_asked_and_agree() -> None:
    with answering(longer) as url:
        assert judge(HttpJudge(url, "m"), PAIRS) == (1, 1, 0, 0)


def test_a_judge_that_likes_what_it_reads_first_counts_for_nobody() -> None:
    with answering(lambda _: "A") as url:
        assert judge(HttpJudge(url, "m"), PAIRS) == (0, 0, 0, 2)


@pytest.mark.parametrize("said", [{"error": "no"}, {"choices": []}, [], {"choices": [None]}])
def test_what_is_no_answer_is_a_judge_that_is_away(said: object) -> None:
    with answering(lambda _: said) as url, pytest.raises(ModelAway, match="gives no answer"):
        judge(HttpJudge(url, "m"), PAIRS)


@pytest.mark.parametrize(
    ("first", "last", "said"),
    [("A", "B", "candidate"), ("B", "A", "served"), ("C", "C", "neither"), ("A", "A", None), ("A", "C", None),
     ("A or B", "B", None), ("", "", None), ("Answer: A", "B", "candidate")],
)  # fmt: skip
def test_verdicts(first: str, last: str, said: str | None) -> None:
    assert preferred(first, last) == said
    assert sum(counted([preferred(first, last)])) == 1


def test_a_judge_that_is_down_is_named_and_the_rest_is_measured() -> None:
    right = Message(role="assistant", content="Because.")
    case = Case(id="w", suite="words", prompt=(Message(role="user", content="Why?"),), right=right)
    ours, base = Side(tools_in_prompt=True), Side()
    found = Measured(ours, base, [Answered(case, ours, "because", True), Answered(case, base, "No", True)])
    with answering(longer) as url:
        pass
    said = asked_judge(found, HttpJudge(url, "m", seconds=5))
    assert said.startswith("left out: the judge m at http://127.0.0.1:")
    told = metrics(found, said)
    assert (told.quality, told.served_quality, told.judge) == (1.0, 0.0, said)
    assert pairs(found) == [SideBySide("Why?", "because", "No", "Because.")]


def test_a_judge_that_is_slow_is_left_when_its_time_is_over() -> None:
    with answering(longer) as url, pytest.raises(ModelAway, match="too slow"):
        judge(HttpJudge(url, "m"), PAIRS, seconds=-1)
