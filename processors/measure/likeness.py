"""Is an argument's value one of those that are accepted? By the Berkeley leaderboard's rules for Python.

Types are held strictly: True is no 1, 5.0 is no 5, and only a whole number alone passes for a float. What is written
alike passes as the same string. Where the accepted values are of another type than the schema says, they stand for
something that the caller has to fill in, and are compared as they are.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

KINDS: Mapping[str, type] = {
    "string": str,
    "integer": int,
    "float": float,
    "boolean": bool,
    "array": list,
    "tuple": list,
    "dict": dict,
    "any": str,
}
LEFT_OUT = ""
"""Among the accepted values: the argument need not be given."""
_UNSEEN = re.compile(r"[ ,./\-_*^]")

WRONG_TYPE, WRONG_VALUE = "wrong_type", "wrong_value"


class Typed(NamedTuple):
    """The value may be of this type; `stands_in` where it is the type of the accepted values, not the schema's."""

    stands_in: bool


def why_unlike(value: Any, schema: Mapping[str, Any], accepted: Sequence[Any]) -> str:
    """Nothing, where it is one of those that are accepted."""
    kind = KINDS.get(schema["type"], str)
    inner = KINDS.get(schema["items"]["type"], str) if schema["type"] in ("array", "tuple") else None
    if kind is float and type(value) is int:
        try:
            value = float(value)
        except OverflowError:
            return WRONG_VALUE
    if (typed := _typed(value, kind, inner, accepted)) is None:
        return WRONG_TYPE
    alike = value in accepted if typed.stands_in else _alike(value, kind, inner, accepted)
    return "" if alike else WRONG_VALUE


def may_be_left_out(accepted: Iterable[Any]) -> bool:
    return LEFT_OUT in accepted


def _typed(value: Any, kind: type, inner: type | None, accepted: Sequence[Any]) -> Typed | None:
    meant = next((type(each) for each in accepted if each != LEFT_OUT), None)
    if type(value) is not kind:
        return Typed(True) if type(value) is meant else None
    if inner is not None and not any(_members_typed(value, inner, each) for each in accepted):
        return None
    return Typed(meant is not None and meant is not kind)


def _members_typed(value: Any, inner: type, accepted: Any) -> bool:
    """One level deep. Against what is no list nothing is held."""
    return type(accepted) is not list or all(_typed(each, inner, None, accepted) is not None for each in value)


def _alike(value: Any, kind: type, inner: type | None, accepted: Sequence[Any]) -> bool:
    if kind is dict:
        return any(_dict_alike(value, each) for each in accepted)
    if kind is list and inner is dict:
        return any(_dicts_alike(value, each) for each in accepted)
    if kind is str:
        return _plain(value) in [_plain(each) for each in accepted if type(each) is str]
    if kind is list:
        # An argument that may be left out may be empty, too.
        return _plain_all(value) in [_plain_all(each) for each in accepted if type(each) is list or each == LEFT_OUT]
    return value in accepted


def _dict_alike(value: Mapping[str, Any], accepted: Any) -> bool:
    """Each of its values by a list of its own. What stands deeper is compared as it is."""
    if type(accepted) is not dict:
        return False
    known = all(key in accepted and _plain_or_same(each) in _plain_all(accepted[key]) for key, each in value.items())
    return known and all(key in value or may_be_left_out(each) for key, each in accepted.items())


def _dicts_alike(value: Sequence[Any], accepted: Any) -> bool:
    """So many, in this order."""
    if type(accepted) is not list or len(value) != len(accepted):
        return False
    return all(type(one) is dict and _dict_alike(one, other) for one, other in zip(value, accepted, strict=True))


def _plain_all(values: Iterable[Any]) -> list[Any]:
    return [_plain_or_same(each) for each in values]


def _plain_or_same(value: Any) -> Any:
    return _plain(value) if type(value) is str else value


def _plain(text: str) -> str:
    """Without what people write now this way, now that: blanks, marks between words, capitals, kinds of quotes."""
    return _UNSEEN.sub("", text).lower().replace("'", '"')
