"""Tokens a minute: how much a company may use, what is said to who uses more, and that nobody else pays for it."""

from __future__ import annotations

import random

import pytest

from gpu_workers.refused import QueueFull, TooFast
from gpu_workers.serve.admission import REMEMBERED, Allowance, EngineBounds, Questions
from gpu_workers.serve.port import Question
from gpu_workers.serve.seen import Seen
from schemas.company import Message


class Clock:
    def __init__(self) -> None:
        self.now = 1_000.0

    def __call__(self) -> float:
        return self.now


def bounds(company_tokens: int = 0, waiting: int = 100, company_waiting: int = 100) -> EngineBounds:
    return EngineBounds(4, 2, waiting, company_waiting, company_tokens)


def question(company: str | None = "acme", max_tokens: int = 100) -> Question:
    return Question(id="q", company=company, messages=(Message(role="user", content="Hi"),), max_tokens=max_tokens)


def test_no_limit_is_none() -> None:
    allowance = Allowance(0)
    allowance.take("acme", 10**9, 0.0)
    assert allowance.wait("acme", 0.0) == 0 and allowance.charge(10**9) == 0


def test_a_minute_at_once_and_then_as_they_come() -> None:
    allowance = Allowance(600)
    assert allowance.wait("acme", 0.0) == 0
    allowance.take("acme", 600, 0.0)
    wait = allowance.wait("acme", 0.0)
    assert 0 < wait <= 0.1
    assert allowance.wait("acme", wait + 1e-9) == 0, "it is said when there is room, and then there is"
    allowance.take("acme", 1_200, 10.0)  # of the 100 that came
    assert allowance.wait("acme", 10.0) == pytest.approx(110.1)
    assert allowance.wait("globex", 10.0) == 0 and allowance.wait(None, 10.0) == 0
    assert allowance.wait("acme", 10_000.0) == 0
    assert allowance.left("acme", 10_000.0) == 600, "an idle hour saves nothing up beyond a minute"


def test_a_clock_that_goes_back_gives_nothing() -> None:
    allowance = Allowance(60)
    allowance.take("acme", 60, 100.0)
    assert allowance.left("acme", 50.0) == 0


def test_over_an_hour_nobody_gets_more_than_the_rate_and_who_asks_steadily_gets_it() -> None:
    random.seed(4)
    allowance, now, used, most = Allowance(6_000), 0.0, 0.0, 0.0
    while now < 3_600:
        if wait := allowance.wait("acme", now):
            now += wait
            continue
        cost = random.choice([5, 50, 700, 3_000])
        guess = allowance.charge(random.choice([10, 1_000, 10**7]))
        allowance.take("acme", guess, now)
        now += random.random()
        allowance.take("acme", cost - guess, now)
        used += cost
        most = max(most, used - 100 * now)
    assert most <= 6_000 + 3_000, "never more than a minute and one question ahead"
    assert used >= 0.97 * 6_000 * 60, "a guess that was too high is given back"


def test_companies_that_have_all_theirs_are_forgotten() -> None:
    allowance = Allowance(60)
    for n in range(50 * REMEMBERED):
        allowance.take(f"c{n}", 1, float(n))
    assert len(allowance._left) <= REMEMBERED
    allowance.take("acme", 500, 50.0 * REMEMBERED)
    for n in range(3 * REMEMBERED):
        allowance.take(f"d{n}", 1, 50.0 * REMEMBERED + n / 100)
    assert allowance.wait("acme", 50.0 * REMEMBERED + 30) > 0, "a debt is never forgotten"


def test_a_question_is_charged_what_it_took_however_it_ends() -> None:
    clock = Clock()
    questions = Questions(bounds(company_tokens=1_000), Seen(clock))
    with questions.counted(question(max_tokens=900), letters=40) as visit:
        assert questions._tokens.left("acme", clock.now) == 1_000 - 910
        visit.prompt = 10
        for _ in range(5):
            visit.said()
    assert questions._tokens.left("acme", clock.now) == 1_000 - 15
    with pytest.raises(ZeroDivisionError), questions.counted(question(), 40):
        raise ZeroDivisionError
    assert questions._tokens.left("acme", clock.now) == 1_000 - 15, "what was never read costs nothing"
    assert questions.count == 0


def test_who_is_over_it_hears_when_there_is_room_and_others_hear_nothing() -> None:
    clock = Clock()
    questions = Questions(bounds(company_tokens=60), Seen(clock))
    with questions.counted(question(max_tokens=10_000), letters=10**9) as visit:
        visit.prompt = 90
        with pytest.raises(TooFast, match="used its 60 tokens"), questions.counted(question(), 0):
            pass
        with questions.counted(question("globex"), 0), questions.counted(question(None), 0):
            assert questions.count == 3
    with pytest.raises(TooFast) as refused, questions.counted(question(), 0):
        pass
    assert refused.value.wait == pytest.approx(31.0) and "ask again in 31 s" in str(refused.value)
    clock.now += refused.value.wait
    with questions.counted(question(), 0):
        pass


def test_the_numbers_of_questions_are_bounded_as_before() -> None:
    questions = Questions(bounds(waiting=2, company_waiting=1), Seen())
    with questions.counted(question(), 0):
        with pytest.raises(QueueFull, match="acme"), questions.counted(question(), 0):
            pass
        with questions.counted(question("globex"), 0), pytest.raises(QueueFull), questions.counted(question("x"), 0):
            pass
