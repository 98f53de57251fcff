"""Each kind of word at its limits and past them: both readers, the JSON form and the writers say the same of it."""

from __future__ import annotations

import json
import unicodedata
from io import BytesIO
from typing import Any

import msgspec
import pytest
from fastavro import schemaless_writer
from hypothesis import example, given, settings
from hypothesis import strategies as st

from schemas import words
from schemas.adapters import AdapterRequested
from schemas.codec import reader
from schemas.codec.catalog import StoredEvent, catalog, kind_of
from schemas.codec.codec import MAX_BYTES, decode, encode
from schemas.company import DocumentIngested, RecordIngested, ToolRevoked
from schemas.envelope import Event, Origin
from schemas.jobs import JobCompleted
from schemas.memory import MemoryForgotten
from schemas.rejected import Rejected, Unusable
from schemas.words import DEEPEST, TEXT, WORDS, Word, fits

ORIGIN = Origin("company-data", 0, 0)
FIRST = {"id": "e1", "company": "acme_corp", "time": 1, "correlation": "e1"}
HOSTS: dict[str, tuple[Event, str]] = {
    "id": (JobCompleted(**FIRST, job="j", answer="", steps=1), "job"),
    "company": (JobCompleted(**FIRST, job="j", answer="", steps=1), "company"),
    "name": (ToolRevoked(**FIRST, name="t"), "name"),
    "label": (MemoryForgotten(**FIRST, memory="m"), "memory"),
    "note": (RecordIngested(**FIRST, kind="k", data="{}"), "kind"),
    "adapter": (AdapterRequested(**FIRST, adapter="a/b"), "adapter"),
    "address": (DocumentIngested(**FIRST, uri="u", media_type="m"), "uri"),
    "text": (MemoryForgotten(**FIRST, memory="m"), "reason"),
    "json": (RecordIngested(**FIRST, kind="k", data="{}"), "data"),
    "document": (JobCompleted(**FIRST, job="j", answer="", steps=1), "answer"),
}
"""An event of each kind, and the field that holds it."""

# Of one to four bytes; what hides; what a path, a header, a label or a query would stumble over.
ODD = "aé漢🙂\x00\n\x7f\x80\xa0\xad\u061c\u200b\u202e\u2066\ue000\ufeff\uffff\U000e0041\U0010ffff\u0378"
LETTERS = [*ODD, " ", ".", "..", "/", "\\", '"', "'", "%", "-", "_", "A", "9", "~", "!", "{", "}"]
BRACKETED = st.text(st.sampled_from('[{]}"\\ax'), max_size=400)


def near(word: Word) -> st.SearchStrategy[str]:
    """Words of one or two characters over and over, about as long as they may be."""
    ends = [
        size for size in (0, 1, word.most // 4, word.most // 2, word.most - 1, word.most, word.most + 1) if size >= 0
    ]
    return st.builds(
        lambda size, of, last: (of * size)[: max(0, size - 1)] + last, st.sampled_from(ends), LETTER, LETTER
    )


LETTER = st.sampled_from(LETTERS)


def values(word: Word) -> st.SearchStrategy[str]:
    anything = st.text(st.characters(codec="utf-8"), max_size=140) | st.lists(LETTER, max_size=70).map("".join)
    nested = st.integers(DEEPEST - 2, DEEPEST + 2).map(lambda deep: '{"a":[' * (deep // 2) + "[" * (deep % 2))
    return anything | near(word) | BRACKETED | nested


def unchecked(event: Event, **changes: str) -> bytes:
    """As a writer that checks nothing would write it."""
    entry, body = catalog().by_class[type(event)], BytesIO()
    schemaless_writer(body, entry.schema, {**msgspec.to_builtins(event), **changes})
    return encode(event)[:10] + body.getvalue()


def read_by(read: Any, value: bytes) -> Event | None:
    try:
        return read(value, 10)
    except (Unusable, Left):
        return None


class Left(Exception):
    """To Python."""


def leave(_b: bytes, _p: int) -> None:
    raise Left


def native(entry: StoredEvent) -> Any:
    return reader.native.Reader(entry.plan, leave) if reader.IN_C else reader.compiled(entry.plan)


def written(event: Event) -> bytes | None:
    try:
        return encode(event)
    except Unusable:
        return None


@pytest.mark.parametrize("kind", WORDS)
@given(data=st.data())
@settings(max_examples=150, deadline=None)
def test_readers_writers_and_json_agree_on_what_a_word_is(kind: str, data: st.DataObject) -> None:
    word, (host, field) = WORDS[kind], HOSTS[kind]
    value = data.draw(values(word))
    event, entry = msgspec.structs.replace(host, **{field: value}), catalog().by_class[type(host)]
    raw, good = unchecked(host, **{field: value}), fits(word, value)
    assert read_by(reader.compiled(entry.plan), raw) == (event if good else None)
    assert read_by(native(entry), raw) in ((event, None) if good and not known(value) else (event if good else None,))
    assert written(event) == (raw if good else None)
    for form in (raw, json.dumps(msgspec.to_builtins(event)).encode(), msgspec.json.encode(event)):
        if len(form) > MAX_BYTES:
            continue
        decoded = decode(form, ORIGIN, 0)
        if good:
            assert decoded == event
        else:
            assert isinstance(decoded, Rejected)
            assert decoded.reason in (word.reason, "too_deep", "missing_company") and len(decoded.detail) < 1000
            assert field in decoded.detail or decoded.reason == "missing_company"


def known(value: str) -> bool:
    """Whether this Python's own table has all of it: C reads it without help."""
    return all(unicodedata.category(character) != "Cn" for character in value)


@pytest.mark.parametrize("kind", sorted(set(WORDS) - {"document"}))
def test_a_word_may_be_exactly_as_long_as_its_kind_says(kind: str) -> None:
    word, (host, field) = WORDS[kind], HOSTS[kind]
    for letter in ("a",) if kind == "company" else ("a", "é", "漢", "🙂"):
        size = len(letter.encode()) if word.made_of in ("text", "json") else 1
        longest = letter * (word.most // size)
        assert isinstance(decode(unchecked(host, **{field: longest}), ORIGIN, 0), Event)
        assert decode(unchecked(host, **{field: longest + letter}), ORIGIN, 0).reason == word.reason
        assert written(msgspec.structs.replace(host, **{field: longest + letter})) is None
        assert written(msgspec.structs.replace(host, **{field: longest})) is not None


@pytest.mark.parametrize("kind", WORDS)
def test_half_a_surrogate_pair_is_a_word_nowhere(kind: str) -> None:
    host, field = HOSTS[kind]
    for half in ("\ud800", "a\udfff" * 40):
        assert written(msgspec.structs.replace(host, **{field: half})) is None
        fields = {**msgspec.to_builtins(host), field: half}
        assert isinstance(decode(json.dumps(fields).encode(), ORIGIN, 0), Rejected)
        marked = unchecked(host, **{field: "QQQ"})
        assert isinstance(decode(marked.replace(b"QQQ", b"\xed\xa0\x80"), ORIGIN, 0), Rejected)


JSON_VALUES = st.recursive(
    st.none() | st.integers() | st.text(st.sampled_from('[{]}"\\a'), max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text('"[{\\', max_size=3), inner, max_size=3),
)


@given(JSON_VALUES)
def test_depth_is_that_of_the_value(value: Any) -> None:
    def deep(of: Any) -> int:
        inner = of.values() if isinstance(of, dict) else of if isinstance(of, list) else None
        return 0 if inner is None else 1 + max(map(deep, inner), default=0)

    assert words.depth(json.dumps(value)) == deep(value)


@given(BRACKETED)
@example('"' + "[" * 100)
@example("]" * 100 + "[" * 65)
@example('"\\' + "[" * 100)
def test_depth_never_says_less_than_a_count_of_brackets_does(text: str) -> None:
    now = most = 0
    quoted = escaped = False
    for character in text:
        if quoted:
            quoted, escaped = escaped or character != '"', not escaped and character == "\\"
        elif character == '"':
            quoted = True
        elif character in "[{":
            now += 1
        elif character in "]}":
            now = max(0, now - 1)
        most = max(most, now)
    assert words.depth(text) == most


def test_what_hides_is_what_unicode_says() -> None:
    """And nothing else: so a word that one Python prints, another does not refuse."""
    for code in range(0x110000):
        category, hidden = unicodedata.category(chr(code)), words.hides(chr(code)) is not None
        invisible = category in ("Cc", "Cf", "Cs", "Co", "Zl", "Zp") or (category == "Zs" and code != 32)
        assert hidden == invisible or (hidden and category == "Cn"), hex(code)


@given(st.text(st.characters(), max_size=50), st.integers(1, 80))
def test_what_is_shortened_fits(text: str, most: int) -> None:
    short = words.shortened(text, most)
    assert len(short.encode()) <= most
    assert fits(TEXT, words.shortened(text * 3000))
    if len(text.encode(errors="replace")) <= most and "?" not in short:
        assert short == text


def test_each_kind_has_a_field_that_holds_it() -> None:
    for kind, (host, field) in HOSTS.items():
        source = {each["name"]: each.get("word") for each in catalog().by_kind[kind_of(type(host))].source["fields"]}
        assert source[field] == kind
    assert list(HOSTS) == list(WORDS)
