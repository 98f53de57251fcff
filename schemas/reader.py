"""Readers compiled from the stored schemas: one straight run of Python for each record.

A walk over the schema, even in C, pays at every field for finding out what it is; here only the bytes are left.
The suite holds these readers equal to both Avro libraries, in what they return and in what they refuse.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from struct import Struct
from textwrap import dedent, indent
from typing import Any, cast

from schemas import primitives
from schemas.envelope import Kind

Schema = Mapping[str, Any]
Builders = Mapping[str, Callable[..., Any]]
Reader = Callable[[bytes, int], Any]
"""(bytes, start) to what was built from all of them. Raises whatever happens on bytes that do not fit."""

NOT_SHORT = -(1 << 62)
SHORT = tuple(n // 2 + 1 if n < 128 and n % 2 == 0 else NOT_SHORT for n in range(256))
"""The first byte of a text to the size of prefix and text together, if the prefix is that one byte."""
SHORT_NAME = (NOT_SHORT, *SHORT[1:])
"""The same for a text that may not be empty."""

# In each: `b` the bytes, `p` the position, X the variable to fill.
NAME = """
    q = p + SHORT_NAME[b[p]]
    if q > p:
        X = b[p + 1 : q].decode()
        p = q
    else:
        X, p = name(b, p)
    """
# A length of one byte, of two (64 to 8191 bytes), or anything else
TEXT = """
    q = p + SHORT[b[p]]
    if q > p:
        X = b[p + 1 : q].decode()
        p = q
    elif b[p + 1] < 128 and b[p] & 129 == 128:
        q = p + 2 + ((b[p] & 127 | b[p + 1] << 7) >> 1)
        X = b[p + 2 : q].decode()
        p = q
    else:
        X, p = text(b, p)
    """
LONG = """
    X = b[p]
    if X < 128:
        X = X >> 1 ^ -(X & 1)
        p += 1
    else:
        X, p = long(b, p)
    """
NULLABLE = """
    if b[p] == 0:
        X = None
        p += 1
    else:
        if b[p] != 2:
            neither(p)
        p += 1
    """
ARRAY = """
    X = ()
    n, p = (0, p + 1) if b[p] == 0 else block(b, p)
    if n:
        X_items = []
        while n:
            for _ in range(n):
    """
ARRAY_END = """
                X_items.append(X_item)
            n, p = block(b, p)
        X = tuple(X_items)
    """
PLAIN = {
    "string": TEXT,
    "long": LONG,
    "bytes": "X, p = raw(b, p)",
    "double": "X = double(b, p)[0]\nif X - X != 0:\n    checked_number(X)\np += 8",
    "boolean": "X = b[p] == 1\nif b[p] > 1:\n    neither(p)\np += 1",
}
ENVELOPE = {
    "id": NAME,
    "type": """
    q = p + TITLE_SIZE
    q += SHORT[b[q]]
    event_company = heads.get(b[p:q]) if q > p else None
    if event_company is None:
        event_company, p = heads.read(b, p)
    else:
        p = q
    """,
    "version": "",
    "company": "",
    "time": """
    n = clock.get(b[p + 4 : p + 8])
    if n is not None and b[p] & b[p + 1] & b[p + 2] & b[p + 3] & 128 and not b[p] & 1:
        X = n + b[p] + (b[p + 1] << 7) + (b[p + 2] << 14) + (b[p + 3] << 21) >> 1
        p += 8
    else:
        X, p = clock.time(b, p)
    """,
    "correlation": NAME,
}


def compiled(schema: Schema, kind: Kind, builders: Builders) -> Reader:
    """A reader of one event's schema. Builders go by record name; a record without one becomes a dict."""
    assert [field["name"] for field in schema["fields"][:4]] == ["id", "type", "version", "company"]
    names: dict[str, Any] = {
        **{f.__name__: f for f in (primitives.long, primitives.raw, primitives.text, primitives.name)},
        **{
            f.__name__: f for f in (primitives.block, primitives.neither, primitives.ends_at, primitives.checked_number)
        },
        **{"SHORT": SHORT, "SHORT_NAME": SHORT_NAME, "double": Struct("<d").unpack_from},
        **{"TITLE_SIZE": len(kind.type) + 2, "heads": primitives.Heads(kind), "clock": primitives.Clock()},
        **{f"make_{name}": make for name, make in builders.items()},
    }
    body = _record(schema, "event", {}, builders, envelope=ENVELOPE)
    source = f"def read(b, p):\n{indent(body, '    ')}\n    if p != len(b):\n        ends_at(b, p)\n    return event"
    exec(source, names)  # noqa: S102 - the lines above, filled from our own schema files
    return cast(Reader, names["read"])


def _record(
    schema: Schema, target: str, seen: dict[str, Schema], builders: Builders, envelope: Mapping[str, str] | None = None
) -> str:
    """Reads each field into a variable of its own, then builds. An event's type and version are its class's own."""
    name = schema["name"].rpartition(".")[2]
    seen[name] = schema
    parts, values = [], {}
    for field in schema["fields"]:
        key, variable = field["name"], f"{target}_{field['name']}"
        own = (envelope or {}).get(key)
        parts.append(_any(field["type"], variable, seen, builders) if own is None else _fill(own, variable))
        if not (envelope and key in ("type", "version")):
            values[key] = variable
    if name in builders:
        built = f"make_{name}({', '.join(f'{key}={value}' for key, value in values.items())})"
    else:
        built = f"{{{', '.join(f'{key!r}: {value}' for key, value in values.items())}}}"
    return "\n".join([*parts, f"{target} = {built}"])


def _any(schema: Any, target: str, seen: dict[str, Schema], builders: Builders) -> str:
    if isinstance(schema, list):
        (inner,) = (branch for branch in schema if branch != "null")
        return _fill(NULLABLE, target) + "\n" + indent(_any(inner, target, seen, builders), "    ")
    if isinstance(schema, str):
        if schema in PLAIN:
            return _fill(PLAIN[schema], target)
        return _record(seen[schema.rpartition(".")[2]], target, seen, builders)
    if schema["type"] == "array":
        item = indent(_any(schema["items"], f"{target}_item", seen, builders), " " * 12)
        return "\n".join([_fill(ARRAY, target), item, _fill(ARRAY_END, target, "    ")])
    return (
        _record(schema, target, seen, builders) if schema["type"] == "record" else _fill(PLAIN[schema["type"]], target)
    )


def _fill(template: str, variable: str, margin: str = "") -> str:
    lines = dedent(template).strip("\n").rstrip()
    return indent(lines, margin).replace("X", variable) if margin else lines.replace("X", variable)
