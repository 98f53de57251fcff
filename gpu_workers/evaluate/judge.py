"""Asks a judge about words: any OpenAI-compatible endpoint. One that is down costs its own suite and nobody's time."""

import time
from collections.abc import Callable, Sequence
from typing import NamedTuple

from gpu_workers.evaluate.endpoint import ChatEndpoint
from gpu_workers.evaluate.measure import Measured
from processors.errors import ModelAway
from processors.measure.judging import Preferred, Verdicts, asked, counted, preferred
from schemas.company import Message

ASK_SECONDS, ALL_SECONDS = 30.0, 300.0
"""For one question, and for all of them."""
VERDICT_TOKENS = 8


Ask = Callable[[Sequence[Message]], str]
"""What a model says to messages. Raises ModelAway."""


class SideBySide(NamedTuple):
    """What both said to one request."""

    request: str
    candidate: str
    served: str
    right: str


class HttpJudge:
    """`url` ends before /v1."""

    def __init__(self, url: str, model: str, token: str = "", seconds: float = ASK_SECONDS) -> None:
        self._endpoint = ChatEndpoint("the judge", url, model, token, seconds)

    def __call__(self, messages: Sequence[Message]) -> str:
        said = [{"role": message.role, "content": message.content} for message in messages]
        return self._endpoint.says(said, VERDICT_TOKENS, temperature=0)


def pairs(measured: Measured) -> list[SideBySide]:
    """Words that both were asked for, and said otherwise."""
    served = {each.case.id: each.text for each in measured.of(measured.served)}
    said = (each for each in measured.of(measured.candidate) if each.case.suite == "words" and each.case.right)
    return [
        SideBySide(each.case.prompt[-1].content, each.text, served[each.case.id], each.case.right.content)
        for each in said
        if each.case.right and each.text != served.get(each.case.id, each.text)
    ]


def judge(ask: Ask, answers: Sequence[SideBySide], seconds: float = ALL_SECONDS) -> Verdicts:
    """Each pair in both orders. Raises ModelAway at the first question that gets no answer."""
    until = time.monotonic() + seconds
    return counted([_one(ask, pair, until) for pair in answers])


def _one(ask: Ask, pair: SideBySide, until: float) -> Preferred | None:
    if time.monotonic() > until:
        raise ModelAway("the judge is too slow: it had its time for all questions together. Ask it for fewer rows.")
    first, last = asked(pair.request, pair.candidate, pair.served, pair.right)
    return preferred(ask(first), ask(last))
