"""Writers compiled from the stored schemas, as `reader` compiles readers: what they write, those accept."""

from collections.abc import Callable, Mapping
from functools import partial
from struct import Struct
from textwrap import indent
from typing import Any, NamedTuple, cast

from schemas.codec.primitives import MAX_TIME, checked_company, checked_number, checked_time, checked_word
from schemas.envelope import Event, Kind
from schemas.rejected import Unusable
from schemas.words import DEEPEST, JSON, LABEL, WORDS, Word

try:
    from schemas.codec.native import visible
except ImportError:

    def visible(most: int, *texts: str | None) -> bool:
        """None, or 1 to `most` visible ASCII characters each."""
        return all(t is None or (0 < len(t) <= most and t.isascii() and t.isprintable()) for t in texts)


Schema = Mapping[str, Any]
Writer = Callable[[Event], bytes]

REMEMBERED = 4096
SMALL = tuple(bytes([n * 2]) for n in range(64)) + tuple(bytes([-n * 2 - 1]) for n in range(-64, 0))
"""-64 to 63 as Avro longs; a negative one finds its place from the end."""
SIZES = SMALL[:64] + tuple(bytes([n * 2 & 127 | 128, n >> 6]) for n in range(64, 1024))
"""0 to 1023, which most texts are long."""


SHALLOW = f" and (len(X) <= {DEEPEST} or X.count(b'[') + X.count(b'{{') <= {DEEPEST})"
"""A quick look at JSON: it cannot be deeper than it has brackets."""


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


class Names(dict[str, str]):
    """Those that were found to fit one field: a company has few roles, agents and tools."""

    def __init__(self, word: Word, field: str) -> None:
        self.word, self.field = word, field

    def __missing__(self, name: str) -> str:
        if len(self) >= REMEMBERED:
            self.clear()
        self[name] = checked_word(self.word, self.field, name)
        return name


def long(value: int) -> bytes:
    if not -(1 << 63) <= value < 1 << 63:
        raise Unusable("wrong_type", f"{value:.3e} does not fit an Avro long" if abs(value) < 1e300 else "no Avro long")
    rest, out = (value << 1) ^ (value >> 63), bytearray()
    while rest > 127:
        out.append(rest & 127 | 128)
        rest >>= 7
    out.append(rest)
    return bytes(out)


def not_utf8(event: Event, error: UnicodeEncodeError) -> None:
    raise Unusable("bad_utf8", f"{event.type}: {error}") from error


def checked_size(word: Word, field: str, value: bytes) -> bytes:
    """The size of a text or of JSON that is longer than a few bytes, if it may be."""
    if len(value) > word.most or (word is JSON and value.count(b"[") + value.count(b"{") > DEEPEST):
        checked_word(word, field, value.decode())
    return long(len(value))


class Parts(NamedTuple):
    """Statements to run first, and the expressions whose bytes follow one another."""

    before: list[str]
    pieces: list[str]


class Spot(NamedTuple):
    """Where in an event a value stands. `names` are those that the writer knows by then."""

    field: str
    word: Word | None
    seen: dict[str, Schema]
    names: dict[str, Any]
    looked: bool = False
    """It was already looked at, with all short words of its record."""


def compiled_writer(schema: Schema, kind: Kind, framing: bytes) -> Writer:
    """`framing` goes before every event."""
    names: dict[str, Any] = {"FRAMING": framing, "SMALL": SMALL, "SIZES": SIZES}
    names |= {"heads": Heads(kind), "long": long, "double": Struct("<d").pack}
    names |= {used.__name__: used for used in (checked_time, checked_number, visible, not_utf8)}
    fields = [field for field in schema["fields"] if field["name"] not in ("type", "version", "company")]
    before, (size, id_, *pieces) = _fields(fields, "e", "v", Spot("", None, {}, names))
    first = f"if not 0 <= e.time <= {MAX_TIME}:\n    checked_time(e.time)"
    pieces = ["FRAMING", size, id_, "heads[e.company]", *pieces]
    body = "\n".join([first, *before, f"return b''.join(({', '.join(pieces)}))"])
    caught = "    except UnicodeEncodeError as error:\n        not_utf8(e, error)"
    exec(f"def write(e):\n    try:\n{indent(body, '        ')}\n{caught}", names)  # noqa: S102 - written above, from our own schema files
    return cast(Writer, names["write"])


def _fields(fields: list[Schema], source: str, target: str, at: Spot) -> Parts:
    places = [
        at._replace(
            field=f"{at.field}.{field['name']}".lstrip("."),
            word=WORDS[field["word"]] if "word" in field else None,
            looked=_is_short(field),
        )
        for field in fields
    ]
    own = [(field["type"], f"{source}.{field['name']}", f"{target}_{field['name']}") for field in fields]
    all_ = [_any(*each, place) for each, place in zip(own, places, strict=True)]
    short = {name: place for (_, name, _), place in zip(own, places, strict=True) if place.looked}
    before = [line for parts in all_ for line in parts.before]
    return Parts([*_look(short), *before], [piece for parts in all_ for piece in parts.pieces])


def _look(short: Mapping[str, Spot]) -> list[str]:
    """One at all short words of a record: most are plain, and then none is checked by itself."""
    lines = [f"if not visible({LABEL.most}, {', '.join(short)}):"] if short else []
    for name, place in short.items():
        assert place.word is not None
        check = f"check_{place.field.replace('.', '_')}"
        place.names[check] = partial(checked_word, place.word, place.field)
        lines.append(f"    {name} is None or {check}({name})")
    return lines


def _is_short(field: Schema) -> bool:
    """Ids, labels and notes, as most texts are. What is no label may still be a note: it is checked anew."""
    word = WORDS.get(field.get("word", ""))
    limits = word and (word.made_of, word.most)
    return limits == (LABEL.made_of, LABEL.most) and field["type"] in ("string", ["null", "string"])


def _any(schema: Any, source: str, target: str, at: Spot) -> Parts:
    if isinstance(schema, list):
        return _nullable(next(branch for branch in schema if branch != "null"), source, target, at)
    if isinstance(schema, dict) and schema["type"] == "array":
        return _array(schema["items"], source, target, at)
    if isinstance(schema, dict) and schema["type"] == "record":
        at.seen[f"{schema['namespace']}.{schema['name']}"] = schema
        return _fields(schema["fields"], source, target, at)
    if schema in at.seen:
        return _fields(at.seen[schema]["fields"], source, target, at)
    return _word(source, target, at) if schema == "string" else _plain(schema, source, target)


def _word(source: str, target: str, at: Spot) -> Parts:
    assert at.word is not None, f"{at.field} has no kind of word"
    check, sized = f"{target}_check", f"{target}_sized"
    lines, size = [f"{target} = {source}.encode()"], _sized(target)
    match at.word.made_of:
        case "plain":
            at.names[check] = Names(at.word, at.field)
            lines.insert(0, f"{check}[{source}]")
        case "printable" if not at.looked:
            at.names[check] = partial(checked_word, at.word, at.field)
            lines.insert(0, f"{check}({source})")
        case "text" | "json":
            at.names[sized] = partial(checked_size, at.word, at.field)
            size = _sized(target, f"{sized}({target})", SHALLOW if at.word is JSON else "")
    return Parts(lines, [size, target])


def _sized(variable: str, otherwise: str = "", unless: str = "") -> str:
    known = f"len({variable}) < {len(SIZES)}{unless.replace('X', variable)}"
    return f"SIZES[len({variable})] if {known} else {otherwise or f'long(len({variable}))'}"


def _plain(schema: str, source: str, target: str) -> Parts:
    if schema == "bytes":
        return Parts([f"{target} = {source}"], [_sized(target), target])
    if schema == "long":
        return Parts([f"{target} = {source}"], [f"SMALL[{target}] if -64 <= {target} < 64 else long({target})"])
    return Parts(
        [], [{"double": f"double(checked_number({source}))", "boolean": f"b'\\1' if {source} else b'\\0'"}[schema]]
    )


def _nullable(schema: Any, source: str, target: str, at: Spot) -> Parts:
    before, pieces = _any(schema, target, f"{target}_given", at)
    lines = [f"{target} = {source}", f"if {target} is None:", f"    {target} = b'\\0'", "else:"]
    lines += [indent(line, "    ") for line in [*before, f"{target} = b''.join((b'\\2', {', '.join(pieces)}))"]]
    return Parts(lines, [target])


def _array(items: Any, source: str, target: str, at: Spot) -> Parts:
    before, pieces = _any(items, f"{target}_item", f"{target}_own", at)
    lines = [f"{target} = b'\\0'", f"if {source}:", f"    {target}_all = [long(len({source}))]"]
    lines += [f"    for {target}_item in {source}:"]
    lines += [indent(line, "        ") for line in [*before, f"{target}_all += ({', '.join(pieces)},)"]]
    lines += [f"    {target}_all.append(b'\\0')", f"    {target} = b''.join({target}_all)"]
    return Parts(lines, [target])
