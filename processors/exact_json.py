"""JSON that every reader takes for the same thing; what two might take for two is refused."""

import json
from collections import Counter
from math import isfinite
from typing import Any, NoReturn

from processors.gate import canonical
from schemas.words import JSON, fits

SHOWN = 60
"""Letters of a key that somebody else wrote, repeated to him."""


def as_written(arguments: str) -> str:
    """A call's arguments as everybody would have written them. Raises ValueError where they are no one object."""
    if not fits(JSON, arguments):
        raise ValueError("deeper or longer than any event's JSON")
    found = exact(arguments)
    if not isinstance(found, dict):
        raise ValueError("no JSON object")
    return canonical(found)


def exact(text: str) -> Any:
    """Raises ValueError, also for what is no JSON at all; RecursionError for what is too deep for this reader."""
    return json.loads(text, object_pairs_hook=_once, parse_constant=_no_number, parse_float=_finite, parse_int=_whole)


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        twice = Counter(key for key, _ in pairs).most_common(1)[0][0]
        raise ValueError(f"{twice[:SHOWN]!r} stands twice: say it once")
    return found


def _no_number(text: str) -> NoReturn:
    raise ValueError(f"{text} is no JSON")


def _finite(text: str) -> float:
    number = float(text)
    if not isfinite(number):
        raise ValueError(f"{text} is beyond every number")
    return number


def _whole(text: str) -> int:
    if not -(2**63) <= (number := int(text)) < 2**64:
        raise ValueError(f"{text} is a whole number to some readers and a float to others")
    return number
