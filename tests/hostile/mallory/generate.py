"""Extreme values, drawn by Hypothesis from what a schema says: nearly right events, nearly right requests.

Something wholly wrong is refused at the door. What is right but for one value goes further in.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, TypeVar
from urllib.parse import quote

from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st

from schemas.codec.catalog import StoredEvent, catalog
from tests.hostile.mallory.words import CORPUS, VALID, Line

Drawn = TypeVar("Drawn")
ODD_TEXTS = (
    "", " ", ".", "..", "../..", "/", "a/b", "//", "~", "~nouser/x", "~root", "a\x00b", "\x00", "a\nb", "\r\n",
    "\ud800", "\u202e", "\u0301", "\u2603", "\U0001f9e8", "%2e%2e%2f", "%00", "%252F", ";", "'", '"', "{{7*7}}",
    "<|im_end|>", "null", "NaN", "0", "-1", "1e400", "[", "{", "{}", "[]", '{"a":NaN}', "acme", "acme/default",
    "http://169.254.169.254/", "file:///etc/passwd", "constructor", "$ref",
)  # fmt: skip
LENGTHS = (63, 64, 65, 127, 128, 129, 255, 256, 257, 3_000, 16_001, 65_535, 65_537, 262_145)
EDGES = (0, 1, -1, 2**31 - 1, 2**31, 2**53 + 1, 2**62, 2**63 - 1, -(2**63), 2**63, 10**30)
NUMBERS = (1e-40, 5e-324, 1e308, -0.0, 2.0**53, float("nan"), float("inf"), float("-inf"))
ROUTES: tuple[Mapping[str, Any], ...] = tuple(json.loads((CORPUS / "routes.json").read_text()))
"""A right request for every route of the API and of the workers."""

texts = st.one_of(
    st.sampled_from(ODD_TEXTS),
    st.text(st.characters(), max_size=40),
    st.builds(lambda unit, size: unit * size, st.sampled_from(['"', "a", "[", '{"a":', "\u2603", "\x01", "/", "\\"]),
              st.sampled_from(LENGTHS)),
)  # fmt: skip
whole = st.sampled_from(EDGES) | st.integers(-(2**63), 2**63 - 1)
numbers = st.sampled_from(NUMBERS) | st.floats()
scalars = st.none() | st.booleans() | whole | numbers | texts
names = st.sampled_from(("a", "name", "company", "company_id", "type", "id", "", "..", "__proto__"))
documents = st.recursive(scalars, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(names, inner, max_size=3))


def drawn(strategy: st.SearchStrategy[Drawn], count: int, seed_: int) -> list[Drawn]:
    """The same values for the same seed."""
    found: list[Drawn] = []

    @seed(seed_)
    @settings(
        max_examples=count,
        database=None,
        deadline=None,
        phases=(Phase.generate,),
        suppress_health_check=list(HealthCheck),
    )
    @given(strategy)
    def collect(value: Drawn) -> None:
        found.append(value)

    collect()
    return found


def events() -> st.SearchStrategy[Line]:
    """Of every schema, old versions too."""
    return st.sampled_from(sorted(catalog().by_kind)).flatmap(lambda kind: _event(catalog().by_kind[kind]))


def _event(entry: StoredEvent) -> st.SearchStrategy[Line]:
    fields = {
        field["name"]: field["type"] for field in entry.source["fields"] if field["name"] not in ("type", "company")
    }
    changes = st.dictionaries(st.sampled_from(sorted(fields)), st.none(), min_size=1, max_size=3).flatmap(
        lambda chosen: st.fixed_dictionaries({name: _of_type(fields[name]) | scalars for name in chosen})
    )
    type_, version = entry.kind

    def line(changed: dict[str, Any]) -> Line:
        keeps = {name: value for name, value in VALID[type_].items() if name in fields}
        says = {"type": type_, "with": {**keeps, "version": version, **changed}}
        return Line("drawn", f"{entry.kind} with {repr(changed)[:150]}", says)

    return changes.map(line)


def _of_type(kind: Any) -> st.SearchStrategy[Any]:
    """What Avro can say: these reach the readers of Avro too."""
    if isinstance(kind, list):
        return st.one_of(*map(_of_type, kind))
    if isinstance(kind, dict):
        if kind["type"] == "array":
            few = st.lists(_of_type(kind["items"]), max_size=3)
            return few | _of_type(kind["items"]).map(repeated)
        return st.fixed_dictionaries({field["name"]: _of_type(field["type"]) for field in kind["fields"]})
    return {
        "string": texts,
        "long": st.integers(-(2**63), 2**63 - 1) | st.sampled_from([n for n in EDGES if -(2**63) <= n < 2**63]),
        "double": numbers,
        "boolean": st.booleans(),
        "bytes": st.none(),
        "null": st.none(),
    }[kind]


def repeated(item: Any) -> list[Any]:
    """So often that it is too much, and no more than this process can hold."""
    return [item] * min(3_000, 1 + (8 << 20) // len(repr(item)))


def requests() -> st.SearchStrategy[Line]:
    return st.sampled_from(ROUTES).flatmap(_request)


def _request(route: Mapping[str, Any]) -> st.SearchStrategy[Line]:
    """One value of the path, the query or the body is another."""
    path = st.fixed_dictionaries({name: st.just(right) | texts for name, right in route.get("path", {}).items()})
    query = st.lists(st.tuples(st.sampled_from(route.get("query", ["a"])), texts | whole | numbers), max_size=3)
    body = mutated(route["body"]) if "body" in route else st.just(b"")

    def line(path: dict[str, str], raw: bool, query: list[tuple[str, Any]], body: Any) -> Line:
        values = {name: value[:2_000] if raw else quoted(value[:2_000]) for name, value in path.items()}
        asked = "&".join(f"{quoted(name)}={quoted(str(value)[:500])}" for name, value in query if name != "wait")
        target = route["path_of"].format(**values) + (f"?{asked}" if asked else "")
        first = f"{route['method']} {target.translate(NOT_IN_A_LINE)}"
        says = {"line": first, "door": route.get("door", "api"), "as": route.get("as", "mallory"), "body": body}
        return Line("drawn", f"{first[:120]} {repr(body)[:120]}", says)

    return st.builds(line, path, st.booleans(), query, body)


NOT_IN_A_LINE = {ord(" "): "%20", ord("\r"): "%0D", ord("\n"): "%0A"}


def quoted(text: str) -> str:
    return quote(text.encode("utf-8", "surrogatepass"), safe="")


def mutated(right: Any) -> st.SearchStrategy[Any]:
    """The same document with one node replaced, or nothing of it."""
    places = list(_places(right, ()))
    return st.builds(lambda place, value: _put(right, place, value), st.sampled_from(places), scalars | documents)


def _places(node: Any, at: tuple[Any, ...]) -> Any:
    yield at
    if isinstance(node, dict) and not any(name.startswith("$") for name in node):
        for name, inner in node.items():
            yield from _places(inner, (*at, name))
    elif isinstance(node, list):
        for n, inner in enumerate(node):
            yield from _places(inner, (*at, n))


def _put(node: Any, place: tuple[Any, ...], value: Any) -> Any:
    if not place:
        return value
    copy = dict(node) if isinstance(node, dict) else list(node)
    copy[place[0]] = _put(node[place[0]], place[1:], value)
    return copy
