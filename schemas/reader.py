"""Readers compiled from the stored schemas: one straight run of Python for each record.

A walk over the schema, even in C, pays at every field for finding out what it is; here only the bytes are left.
The suite holds these readers equal to both Avro libraries, in what they return and in what they refuse.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from struct import Struct
from struct import error as StructError
from textwrap import dedent, indent
from typing import Any, cast

from schemas import primitives
from schemas.envelope import Kind

Schema = Mapping[str, Any]
Builders = Mapping[str, Callable[..., Any]]
Reader = Callable[[bytes, int], Any]
"""(bytes, start) to what was built from all of them. Raises whatever happens on bytes that do not fit."""

SHORT = tuple(n // 2 + 1 if n < 128 and n % 2 == 0 else 0 for n in range(256))
"""The first byte of a text to the size of prefix and text together, if the prefix is that one byte. Else 0."""
SHORT_NAME = (0, *SHORT[1:])
"""The same for a text that may not be empty."""

# In each: `b` the bytes, `p` the position, X the variable to fill.
NAME = """
    if n := SHORT_NAME[b[p]]:
        X = b[p + 1 : (p := p + n)].decode()
    else:
        X, p = name(b, p)
    """
# A length of one byte, of two (64 to 8191 bytes), or anything else
TEXT = """
    if n := SHORT[b[p]]:
        X = b[p + 1 : (p := p + n)].decode()
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
            n, p = (0, p + 1) if b[p] == 0 else block(b, p)
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
    n = SHORT[b[q]]
    event_company = heads.get(b[p : q + n]) if n else None
    if event_company is None:
        event_company, p = heads.read(b, p)
    else:
        p = q + n
    """,
    "version": "",
    "company": "",
    "time": "X, p = clock.time(b, p)",
    "causation": NULLABLE + indent(TEXT, "    "),
    "correlation": NAME,
}
# Most envelopes, in one call: ids of 36 bytes, as UUIDs are, a company and a stretch of time that were read before.
# `link` is what stands before the last id: 00 for no causation or 02 for one, and 48, the size of an id.
USUAL = """
    link = 0
    if b[p] == 0x48:
        try:
            size = b[p + COMPANY_AT]
            event_id, head, near, middle, far, link, event_correlation = layouts[size](b, p)
            event_company = heads.get(head)
            event_time = clock.get(far, UNKNOWN) + NEAR[near] + MIDDLE[middle]
            if event_time < 0 or event_company is None:
                link = 0
        except (IndexError, StructError):
            pass
    if link == 0x4800:
        event_id = event_id.decode()
        event_causation = None
        event_correlation = event_correlation.decode()
        p += USUAL_SIZE + (size >> 1)
    elif link == 0x4802:
        event_id = event_id.decode()
        event_causation = event_correlation.decode()
        p += USUAL_SIZE + (size >> 1)
    """
"""Ends in the branch where the correlation is still to be read."""


def compiled(schema: Schema, kind: Kind, builders: Builders) -> Reader:
    """A reader of one event's schema. Builders go by record name; a record without one becomes a dict."""
    names: dict[str, Any] = {
        **{f.__name__: f for f in (primitives.long, primitives.raw, primitives.text, primitives.name)},
        **{
            f.__name__: f for f in (primitives.block, primitives.neither, primitives.ends_at, primitives.checked_number)
        },
        **{"SHORT": SHORT, "SHORT_NAME": SHORT_NAME, "double": Struct("<d").unpack_from},
        **_envelope_names(kind),
        **{f"make_{name}": make for name, make in builders.items()},
    }
    body = "\n".join([_envelope(schema), _record(schema, "event", {}, builders, read_before=ENVELOPE)])
    source = f"def read(b, p):\n{indent(body, '    ')}\n    if p != len(b):\n        ends_at(b, p)\n    return event"
    exec(source, names)  # noqa: S102 - the lines above, filled from our own schema files
    return cast(Reader, names["read"])


def _envelope(schema: Schema) -> str:
    """The usual one, else field by field."""
    first = {field["name"]: field["type"] for field in schema["fields"][: len(ENVELOPE)]}
    assert list(first) == list(ENVELOPE) and first["causation"] == ["null", "string"]
    each = "\n".join(_fill(template, f"event_{key}") for key, template in ENVELOPE.items())
    correlation = _fill(NAME, "event_correlation")
    return "\n".join([dedent(USUAL).strip("\n"), indent(correlation, "    "), "else:", indent(each, "    ")])


def _envelope_names(kind: Kind) -> dict[str, Any]:
    title, clock = len(kind.type) + 2, primitives.Clock()
    layouts = [Struct(f"<x36s{title + 1 + size // 2}sHHIH36s") for size in range(128)]
    return {
        **{"TITLE_SIZE": title, "COMPANY_AT": title + 37, "USUAL_SIZE": layouts[0].size},
        **{"heads": primitives.Heads(kind), "layouts": [layout.unpack_from for layout in layouts]},
        **{"clock": clock, "NEAR": clock.near, "MIDDLE": clock.middle, "UNKNOWN": primitives.UNKNOWN},
        "StructError": StructError,
    }


def _record(
    schema: Schema, target: str, seen: dict[str, Schema], builders: Builders, read_before: Collection[str] = ()
) -> str:
    """Reads each field into a variable of its own, then builds. An event's type and version are its class's own."""
    name = schema["name"].rpartition(".")[2]
    seen[name] = schema
    variables = {field["name"]: f"{target}_{field['name']}" for field in schema["fields"]}
    parts = [
        _any(field["type"], variables[field["name"]], seen, builders)
        for field in schema["fields"]
        if field["name"] not in read_before
    ]
    values = {key: variable for key, variable in variables.items() if not read_before or key not in ("type", "version")}
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
