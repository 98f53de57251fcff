"""Asks a judge about words: any OpenAI-compatible endpoint. One that is down costs its own suite and nobody's time."""

import json
import time
from collections.abc import Callable, Sequence
from typing import NamedTuple

import httpx

from gpu_workers.evaluate.measure import Measured
from processors.measure.judging import Preferred, Verdicts, asked, counted, preferred
from schemas.company import Message
from schemas.errors import Retry

ASK_SECONDS, ALL_SECONDS = 30.0, 300.0
"""For one question, and for all of them."""
VERDICT_TOKENS = 8


class JudgeAway(Retry):
    """The judge does not answer, or not in time. Its suite is left out, with the reason."""


Ask = Callable[[Sequence[Message]], str]
"""What a model says to messages. Raises JudgeAway."""


class SideBySide(NamedTuple):
    """What both said to one request."""

    request: str
    candidate: str
    served: str
    right: str


class HttpJudge:
    """`url` ends before /v1."""

    def __init__(self, url: str, model: str, token: str = "", seconds: float = ASK_SECONDS) -> None:
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        self._http = httpx.Client(base_url=url, headers=headers, timeout=seconds, trust_env=False)
        self._url, self._model = url, model

    def __call__(self, messages: Sequence[Message]) -> str:
        said = [{"role": message.role, "content": message.content} for message in messages]
        body = {"model": self._model, "messages": said, "max_tokens": VERDICT_TOKENS, "temperature": 0}
        try:
            answer = self._http.post("/v1/chat/completions", json=body).raise_for_status().json()
            return str(answer["choices"][0]["message"]["content"] or "")
        except (httpx.HTTPError, httpx.InvalidURL, json.JSONDecodeError, LookupError, TypeError) as error:
            raise JudgeAway(f"the judge {self._model} at {self._url} gives no verdict: {error!r:.200}.") from error


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
    """Each pair in both orders. Raises JudgeAway at the first question that gets no answer."""
    until = time.monotonic() + seconds
    return counted([_one(ask, pair, until) for pair in answers])


def _one(ask: Ask, pair: SideBySide, until: float) -> Preferred | None:
    if time.monotonic() > until:
        raise JudgeAway("the judge is too slow: it had its time for all questions together. Ask it for fewer rows.")
    first, last = asked(pair.request, pair.candidate, pair.served, pair.right)
    return preferred(ask(first), ask(last))
