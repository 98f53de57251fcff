"""Which setting of a request is wrong, and what it may be: read off the types that refuse it."""

import msgspec
from msgspec import inspect

from processors.training.settings import TrainSettings
from schemas.near import near

PAGE = "docs/training.md lists all settings"
NAME_LETTERS = 60
"""Of a word that somebody else wrote, so much is compared with ours and repeated."""


def wrong_setting(text: str) -> str | None:
    """A sentence with the remedy; None where it is no JSON object, or none of its settings is wrong by itself."""
    return _wrong_field(text, TrainSettings, "")


def _wrong_field(text: str | msgspec.Raw, struct: type[msgspec.Struct], under: str) -> str | None:
    try:
        given = msgspec.json.decode(text, type=dict[str, msgspec.Raw])
    except (msgspec.DecodeError, RecursionError):
        return None
    types = _types(struct)
    for name, value in given.items():
        if name not in types:
            return f"no setting is called {_cut(under + name)!r}: {_remedy(name, struct, under)} {PAGE}."
        if told := _wrong_value(value, types[name], under + name):
            return told
    return None


def _remedy(word: str, struct: type[msgspec.Struct], under: str) -> str:
    """What somebody may have meant. A path in one name is looked at as what it would be in objects."""
    types = _types(struct)
    outer, _, inner = word.partition(".")
    if inner and outer in types and isinstance(of := inspect.type_info(types[outer]), inspect.StructType):
        if inner in _types(of.cls):
            return f'it is a field of {under}{outer}, {{"{outer}": {{"{inner}": ...}}}}.'
        return _remedy(inner, of.cls, f"{under}{outer}.")
    close = near(word[:NAME_LETTERS], types, 3)
    names = [under + name for name in close or types]
    return f"did you mean {' or '.join(names)}?" if close else f"known: {', '.join(names)}."


def _types(struct: type[msgspec.Struct]) -> dict[str, type]:
    return {field.encode_name: field.type for field in msgspec.structs.fields(struct)}


def _wrong_value(value: msgspec.Raw, type_: type, name: str) -> str | None:
    try:
        msgspec.json.decode(value, type=type_)
    except (msgspec.DecodeError, RecursionError):
        of = inspect.type_info(type_)
        if isinstance(of, inspect.StructType) and (told := _wrong_field(value, of.cls, f"{name}.")):
            return told
        given = bytes(value)[: NAME_LETTERS * 4].decode("utf-8", "replace")
        return f"{name}: {described(of)}, and not {_cut(given)}."
    return None


def described(of: inspect.Type) -> str:
    """What a value of this type may be, in words."""
    match of:
        case inspect.IntType() | inspect.FloatType():
            return ("a whole number" if isinstance(of, inspect.IntType) else "a number") + _bounds(of)
        case inspect.LiteralType():
            return f"one of {', '.join(map(str, of.values))}"
        case inspect.VarTupleType():
            return f"a list{_length(of)}, each {described(of.item_type)}"
        case inspect.UnionType():
            return " or ".join(map(described, of.types))
        case inspect.StructType():
            return "a JSON object"
    return {inspect.BoolType: "true or false", inspect.NoneType: "null"}.get(type(of), "a text")


def _bounds(of: inspect.IntType | inspect.FloatType) -> str:
    low, high = of.ge, of.le
    if isinstance(of, inspect.IntType) and of.gt is not None:
        low = of.gt + 1
    if low is not None and high is not None:
        return f" of {low:g} to {high:g}" if max(abs(low), abs(high)) < 1e6 else f" of {low} to {high}"
    over = f" over {of.gt:g}" if of.gt is not None else "" if low is None else f" from {low:g}"
    under = f" up to {high:g}" if high is not None else "" if of.lt is None else f" under {of.lt:g}"
    return f"{over}{' and' if over and under else ''}{under}"


def _length(of: inspect.VarTupleType) -> str:
    if of.max_length is None:
        return ""
    return f" of {of.min_length} to {of.max_length}" if of.min_length else f" of at most {of.max_length}"


def _cut(text: str) -> str:
    return text if len(text) <= NAME_LETTERS else f"{text[:NAME_LETTERS]}\u2026"
