"""Writers compiled from the stored schemas, as `schemas.reader` compiles readers: what they write, those accept."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from struct import Struct
from textwrap import indent
from typing import Any, NamedTuple, cast

from schemas.envelope import Event, Kind
from schemas.primitives import (
    MAX_NAME,
    MAX_TIME,
    checked_company,
    checked_name,
    checked_number,
    checked_time,
)
from schemas.rejected import Unusable

Schema = Mapping[str, Any]
Writer = Callable[[Event], bytes]

REMEMBERED = 4096
SMALL = tuple(bytes([n * 2]) for n in range(64)) + tuple(bytes([-n * 2 - 1]) for n in range(-64, 0))
"""-64 to 63 as Avro longs; a negative one finds its place from the end."""


class Heads(dict[str, bytes]):
    """Company to type, version and company as they stand together."""

    def __init__(self, kind: Kind) -> None:
        self.kind = kind

    def __missing__(self, company: str) -> bytes:
        if len(self) >= REMEMBERED:
            self.clear()
        name, own = self.kind.type.encode(), checked_company(company).encode()
        self[company] = long(len(name)) + name + long(self.kind.version) + long(len(own)) + own
        return self[company]


def long(value: int) -> bytes:
    if not -(1 << 63) <= value < 1 << 63:
        raise Unusable("wrong_type", f"{value:.3e} does not fit an Avro long" if abs(value) < 1e300 else "no Avro long")
    rest, out = (value << 1) ^ (value >> 63), bytearray()
    while rest > 127:
        out.append(rest & 127 | 128)
        rest >>= 7
    out.append(rest)
    return bytes(out)


class Parts(NamedTuple):
    """Statements to run first, and the expressions whose bytes follow one another."""

    before: list[str]
    pieces: list[str]


def compiled_writer(schema: Schema, kind: Kind, framing: bytes) -> Writer:
    """`framing` goes before every event."""
    fields = [field for field in schema["fields"] if field["name"] not in ("id", "type", "version", "company")]
    first = ["name = e.id.encode()", f"if not 0 < len(name) <= {MAX_NAME}:\n    checked_name(e.id)"]
    first += [f"if not 0 < len(e.correlation) <= {MAX_NAME}:\n    checked_name(e.correlation)"]
    first += [f"if not 0 <= e.time <= {MAX_TIME}:\n    checked_time(e.time)"]
    before, pieces = _fields(fields, "e", "v", {})
    pieces = ["FRAMING", _sized("name"), "name", "heads[e.company]", *pieces]
    body = "\n".join([*first, *before, f"return b''.join(({', '.join(pieces)}))"])
    names = {"FRAMING": framing, "SMALL": SMALL, "heads": Heads(kind), "long": long, "double": Struct("<d").pack}
    names |= {check.__name__: check for check in (checked_name, checked_time, checked_number)}
    exec(f"def write(e):\n{indent(body, '    ')}", names)  # noqa: S102 - written above, from our own schema files
    return cast(Writer, names["write"])


def _sized(variable: str) -> str:
    return f"SMALL[len({variable})] if len({variable}) < 64 else long(len({variable}))"


def _fields(fields: list[Schema], source: str, target: str, seen: dict[str, Schema]) -> Parts:
    all_ = [_any(field["type"], f"{source}.{field['name']}", f"{target}_{field['name']}", seen) for field in fields]
    return Parts([line for parts in all_ for line in parts.before], [piece for parts in all_ for piece in parts.pieces])


def _any(schema: Any, source: str, target: str, seen: dict[str, Schema]) -> Parts:
    if isinstance(schema, list):
        return _nullable(next(branch for branch in schema if branch != "null"), source, target, seen)
    if isinstance(schema, dict) and schema["type"] == "array":
        return _array(schema["items"], source, target, seen)
    if isinstance(schema, dict) and schema["type"] == "record":
        seen[f"{schema['namespace']}.{schema['name']}"] = schema
        return _fields(schema["fields"], source, target, seen)
    if schema in seen:
        return _fields(seen[schema]["fields"], source, target, seen)
    return _plain(schema, source, target)


def _plain(schema: str, source: str, target: str) -> Parts:
    if schema == "string":
        return Parts([f"{target} = {source}.encode()"], [_sized(target), target])
    if schema == "bytes":
        return Parts([f"{target} = {source}"], [_sized(target), target])
    if schema == "long":
        return Parts([f"{target} = {source}"], [f"SMALL[{target}] if -64 <= {target} < 64 else long({target})"])
    return Parts(
        [], [{"double": f"double(checked_number({source}))", "boolean": f"b'\\1' if {source} else b'\\0'"}[schema]]
    )


def _nullable(schema: Any, source: str, target: str, seen: dict[str, Schema]) -> Parts:
    before, pieces = _any(schema, target, f"{target}_given", seen)
    lines = [f"{target} = {source}", f"if {target} is None:", f"    {target} = b'\\0'", "else:"]
    lines += [indent(line, "    ") for line in [*before, f"{target} = b''.join((b'\\2', {', '.join(pieces)}))"]]
    return Parts(lines, [target])


def _array(items: Any, source: str, target: str, seen: dict[str, Schema]) -> Parts:
    before, pieces = _any(items, f"{target}_item", f"{target}_own", seen)
    lines = [f"{target} = b'\\0'", f"if {source}:", f"    {target}_all = [long(len({source}))]"]
    lines += [f"    for {target}_item in {source}:"]
    lines += [indent(line, "        ") for line in [*before, f"{target}_all += ({', '.join(pieces)},)"]]
    lines += [f"    {target}_all.append(b'\\0')", f"    {target} = b''.join({target}_all)"]
    return Parts(lines, [target])
