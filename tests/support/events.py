"""Hypothesis strategies for every event, made from what the classes say."""

from __future__ import annotations

from typing import Annotated, Any, get_args, get_origin, get_type_hints

import msgspec
from hypothesis import strategies as st

from schemas.codec.derive import word_of
from schemas.codec.primitives import MAX_TIME
from schemas.envelope import Event
from schemas.topics import TOPIC_OF
from schemas.words import Word

TEXT = st.text(st.characters(codec="utf-8"), max_size=90)
PRINTABLE = st.characters(codec="utf-8", exclude_categories=("C", "Z"), include_characters=" ")
# After a first character that is none of these.
PLAIN_REST = st.characters(codec="utf-8", categories=("L", "N"), include_characters="_.- 漢🙂")
ENVELOPE = {"time": st.integers(0, MAX_TIME)}
PLAIN = {
    int: st.integers(-(2**63), 2**63 - 1),
    float: st.floats(allow_nan=False, allow_infinity=False),
    bool: st.booleans(),
    bytes: st.binary(max_size=90),
}


def events() -> st.SearchStrategy[Event]:
    return st.sampled_from(list(TOPIC_OF)).flatmap(of)


def words(word: Word) -> st.SearchStrategy[str]:
    """What a field of this kind may hold; its limits are tests/codec/test_words.py's."""
    match word.made_of:
        case "company":
            return st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}", fullmatch=True)
        case "printable":
            return st.text(PRINTABLE, min_size=word.least, max_size=min(word.most, 90))
        case "plain":
            return st.text(PLAIN_REST, max_size=word.most - 1).map(lambda rest: f"r{rest}")
    return TEXT


def of(cls: Any) -> st.SearchStrategy[Any]:
    hints = get_type_hints(cls, include_extras=True)
    own = ENVELOPE if issubclass(cls, Event) else {}
    fixed = ("type", "version") if issubclass(cls, Event) else ()
    names = [field.name for field in msgspec.structs.fields(cls) if field.name not in fixed]
    return st.builds(cls, **{name: own[name] if name in own else _values(hints[name]) for name in names})


def _values(hint: Any) -> st.SearchStrategy[Any]:
    if get_origin(hint) is Annotated:
        word = word_of(hint)
        assert word is not None
        return words(word)
    if get_origin(hint) is tuple:
        return st.lists(_values(get_args(hint)[0]), max_size=3).map(tuple)
    if type(None) in get_args(hint):
        return st.none() | _values(next(kind for kind in get_args(hint) if kind is not type(None)))
    if isinstance(hint, type) and issubclass(hint, msgspec.Struct):
        return of(hint)
    return PLAIN[hint]
