"""Texts that fit a `pattern` of a JSON schema, for the patterns that people write for numbers and codes.

Letters, `\\d \\w \\s .`, `[A-Z0-9-]`, `( | )`, `? * + {n} {n,m}` and `^ $`. What repeats holds nothing that repeats, so
that a text is held against it in no time.
"""

import re
from string import ascii_letters, ascii_lowercase, ascii_uppercase, digits
from typing import NamedTuple

from processors.synthetic.lots import Lots

LONGEST = 64
SPARE = 3
"""So many more than it has to be may something without an end repeat."""
_CLASSES = {"d": digits, "w": ascii_letters + digits, "s": " "}
_ENDS = "^$"
_COUNT = re.compile(r"\{(\d{1,3})(,(\d{0,3}))?\}")


class NoText(ValueError):
    """A pattern of which no text is made here."""


class _Letters(NamedTuple):
    some: str


class _Either(NamedTuple):
    ways: "list[list[_Repeated]]"


class _Repeated(NamedTuple):
    what: "_Letters | _Either"
    least: int
    most: int


def text_of(pattern: str, lots: Lots) -> str:
    """Raises NoText."""
    ways, rest = _ways(pattern)
    if rest:
        raise NoText(f"{rest[:10]!r} is more than is understood here")
    text = _drawn(_Either(ways), lots)
    if not fits(pattern, text):
        raise NoText("no text that is made for it fits it")
    return text


def fits(pattern: str, text: str) -> bool:
    """Of a pattern that texts are made for."""
    return len(text) <= LONGEST and re.search(pattern, text) is not None


def _drawn(node: _Letters | _Either, lots: Lots) -> str:
    if isinstance(node, _Letters):
        return lots.one(node.some)
    way = lots.one(node.ways)
    return "".join(_drawn(each.what, lots) for each in way for _ in range(lots.between(each.least, each.most)))


def _ways(text: str) -> tuple[list[list[_Repeated]], str]:
    ways: list[list[_Repeated]] = [[]]
    while text and text[0] != ")":
        if text[0] == "|":
            ways.append([])
            text = text[1:]
        elif text[0] in _ENDS:
            text = text[1:]
        else:
            atom, text = _atom(text)
            least, most, text = _times(text)
            if most > 1 and isinstance(atom, _Either) and any(each.most > 1 for way in atom.ways for each in way):
                raise NoText("what repeats within what repeats is not made here")
            ways[-1].append(_Repeated(atom, least, most))
    return ways, text


def _atom(text: str) -> tuple[_Letters | _Either, str]:
    match text[0]:
        case "(":
            ways, rest = _ways(text[1:].removeprefix("?:"))
            if not rest.startswith(")"):
                raise NoText("a bracket is not closed")
            return _Either(ways), rest[1:]
        case "[":
            return _class(text[1:])
        case "\\":
            return _Letters(_CLASSES.get(text[1:2], text[1:2]) or "\\"), text[2:]
        case ".":
            return _Letters(ascii_lowercase), text[1:]
        case "?" | "*" | "+" | "{":
            raise NoText(f"{text[0]!r} repeats nothing")
    return _Letters(text[0]), text[1:]


def _class(text: str) -> tuple[_Letters, str]:
    end = text.find("]", 1)
    if end < 0 or text.startswith("^"):
        raise NoText("a class that excludes, or has no end, is not made here")
    inside, some = text[:end], ""
    while inside:
        if inside[0] == "\\":
            some, inside = some + _CLASSES.get(inside[1:2], inside[1:2]), inside[2:]
        elif inside[1:2] == "-" and len(inside) > 2:
            some, inside = some + "".join(map(chr, range(ord(inside[0]), ord(inside[2]) + 1))), inside[3:]
        else:
            some, inside = some + inside[0], inside[1:]
    if not some:
        raise NoText("a class is empty")
    # Capitals and small letters beside each other read like noise: codes are written in capitals.
    return _Letters("".join(each for each in some if each in ascii_uppercase + digits) or some), text[end + 1 :]


def _times(text: str) -> tuple[int, int, str]:
    if counted := _COUNT.match(text):
        least = int(counted[1])
        most = least if counted[2] is None else int(counted[3] or least + SPARE)
        if not least <= most <= LONGEST:
            raise NoText(f"{counted[0]} is longer than {LONGEST}, or turned round")
        return least, most, text[counted.end() :]
    bounds = {"?": (0, 1), "*": (0, SPARE), "+": (1, 1 + SPARE)}.get(text[:1])
    return (*bounds, text[1:]) if bounds else (1, 1, text)
