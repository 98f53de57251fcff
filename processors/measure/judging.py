"""A language model as a judge of two answers: asked in both orders, and believed only where it says the same twice."""

import re
from collections.abc import Iterable, Sequence
from typing import Literal, NamedTuple

from schemas.company import Message

Preferred = Literal["candidate", "served", "neither"]
Letter = Literal["A", "B", "C"]
_VERDICT = re.compile(r"\b([ABC])\b")

_ASKED = """Two assistants answered the same request. Which answer is better: correct, complete, to the point?

Request:
{request}

{reference}Answer A:
{a}

Answer B:
{b}

Say one letter and nothing else: A, B, or C where neither is better."""


class Verdicts(NamedTuple):
    """Over all pairs of answers."""

    candidate: int
    served: int
    neither: int
    inconsistent: int
    """The other way round the judge said otherwise, or it said no verdict: these count for nobody."""


def asked(
    request: str, candidate: str, served: str, right: str = ""
) -> tuple[tuple[Message, ...], tuple[Message, ...]]:
    """The candidate's answer first, then last."""
    reference = f"A right answer:\n{right}\n\n" if right else ""
    both = ((candidate, served), (served, candidate))
    first, last = (_ASKED.format(request=request, reference=reference, a=a, b=b) for a, b in both)
    return (Message(role="user", content=first),), (Message(role="user", content=last),)


def preferred(first: str, last: str) -> Preferred | None:
    """None: the two do not agree, or one of them is no verdict."""
    one, other = _letter(first), _letter(last)
    if one == "C" and other == "C":
        return "neither"
    if (one, other) == ("A", "B"):
        return "candidate"
    return "served" if (one, other) == ("B", "A") else None


def counted(verdicts: Iterable[Preferred | None]) -> Verdicts:
    said: Sequence[Preferred | None] = list(verdicts)
    return Verdicts(said.count("candidate"), said.count("served"), said.count("neither"), said.count(None))


def _letter(text: str) -> str | None:
    """The only one that it names."""
    letters = set(_VERDICT.findall(text.strip()))
    return letters.pop() if len(letters) == 1 else None
