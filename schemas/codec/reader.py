"""Readers compiled from plans: one straight run of Python for each record, which says what is wrong with bad bytes.

Where `native` was built, they see only what that does not read, and the suite holds both to the same answers.
"""

from collections.abc import Callable, Sequence
from functools import partial
from struct import Struct
from textwrap import dedent, indent
from typing import Any, TypeVar, cast

from schemas.codec import primitives
from schemas.codec.plan import Plan
from schemas.envelope import Event

try:
    from schemas.codec import native
except ImportError:  # not built: everything goes to Python, and `rillfold doctor` says so
    native = None  # type: ignore[assignment]

Reader = Callable[[bytes, int], Any]
"""(bytes, start) to what was built from all of them. Raises whatever happens on bytes that do not fit."""

Result = TypeVar("Result")
IN_C = native is not None

SHORT = tuple(n // 2 + 1 if n < 128 and n % 2 == 0 else 0 for n in range(256))
"""The first byte of a text to the size of prefix and text together, if the prefix is that one byte. Else 0."""

# In each: `b` the bytes, `p` the position, X the variable to fill.
ARRAY = """
    X_items = []
    n, p = block(b, p)
    while n:
        for _ in range(n):
    """
ARRAY_END = """
            X_items.append(X_item)
        n, p = block(b, p)
    X = tuple(X_items)
    """
OPTIONAL = """
    if b[p] == 0:
        X = None
        p += 1
    else:
        if b[p] != 2:
            neither(p)
        p += 1
    """
SINGLE = {
    # A length of one byte, of two (64 to 8191 bytes), or anything else
    "document": """
    if n := SHORT[b[p]]:
        X = b[p + 1 : (p := p + n)].decode()
    elif b[p + 1] < 128 and b[p] & 129 == 128:
        q = p + 2 + ((b[p] & 127 | b[p + 1] << 7) >> 1)
        X = b[p + 2 : q].decode()
        p = q
    else:
        X, p = text(b, p)
    """,
    "long": """
    X = b[p]
    if X < 128:
        X = X >> 1 ^ -(X & 1)
        p += 1
    else:
        X, p = long(b, p)
    """,
    "company": "X, p = company(b, p)",
    "time": "X, p = time(b, p)",
    "bytes": "X, p = raw(b, p)",
    "double": "X = double(b, p)[0]\nif X - X != 0:\n    checked_number(X)\np += 8",
    "boolean": "X = b[p] == 1\nif b[p] > 1:\n    neither(p)\np += 1",
}
BRIEF = """
    if n := SHORT[b[p]]:
        X = b[p + 1 : (p := p + n)].decode()
    else:
        X, p = text(b, p)
"""
# What the quick look does not see to fit, X_word judges.
WORDS = {
    "printable": BRIEF
    + """
    if not (LEAST <= len(X) <= MOST and X.isprintable()):
        X_word(b, p, X)
    """,
    "plain": """
    X, p = text(b, p)
    X_word(b, p, X)
    """,
    "text": SINGLE["document"].rstrip() + "\n        X_word(b, p, X)",
    "json": BRIEF + "        X_word(b, p, X)",
}
USED = ("block", "checked_number", "company", "ends_at", "kind", "long", "neither", "raw", "text", "time")


def reader(plan: Plan) -> Reader:
    return cast(Reader, native.Reader(plan, compiled(plan))) if IN_C else compiled(plan)


def read_all(
    values: Sequence[bytes | None], readers: dict[bytes, Reader], otherwise: Callable[[int], Result]
) -> list[Event | Result]:
    """What values in single-object encoding are read as. `otherwise` says it by position, where no reader can."""
    if IN_C:
        return native.read_all(values, readers, otherwise)
    events: list[Event | Result] = []
    for n, value in enumerate(values):
        try:
            # Of plain bytes alone, as in C.
            events.append(readers[value[:10] if type(value) is bytes else b""](value, 10))  # type: ignore[arg-type]
        except Exception:  # whatever it was, `otherwise` meets it again and names it
            events.append(otherwise(n))
    return events


def compiled(plan: Plan) -> Reader:
    names: dict[str, Any] = {
        **{used: getattr(primitives, used) for used in USED},
        **{"SHORT": SHORT, "double": Struct("<d").unpack_from},
    }
    body = indent(_record(plan, "event", names), "    ")
    exec(f"def read(b, p):\n{body}\n    if p != len(b):\n        ends_at(b, p)\n    return event", names)  # noqa: S102 - from our own schema files
    return cast(Reader, names["read"])


def _record(plan: Plan, target: str, names: dict[str, Any]) -> str:
    """Reads each field into a variable of its own, then builds."""
    _, make, fields, parts = plan
    left, lines = iter(fields), []
    for part in parts:
        variable = "" if part[0] == "kind" else f"{target}_{next(left)}"
        lines.append(_any(part, variable, names))
    values = {field: f"{target}_{field}" for field in fields}
    if make is None:
        built = f"{{{', '.join(f'{key!r}: {value}' for key, value in values.items())}}}"
    else:
        names[f"make_{target}"] = make
        built = f"make_{target}({', '.join(f'{key}={value}' for key, value in values.items())})"
    return "\n".join([*lines, f"{target} = {built}"])


def _any(plan: Plan, target: str, names: dict[str, Any]) -> str:
    match plan[0]:
        case "kind":
            _, head, title = plan
            return f"p = p + {len(head)} if b.startswith({head!r}, p) else kind(b, p, {title!r})"
        case "optional":
            return _fill(OPTIONAL, target) + "\n" + indent(_any(plan[1], target, names), "    ")
        case "array":
            item = indent(_any(plan[1], f"{target}_item", names), " " * 8)
            return "\n".join([_fill(ARRAY, target), item, _fill(ARRAY_END, target)])
        case "record":
            return _record(plan, target, names)
        case "printable" | "plain" | "text" | "json":
            made_of, least, most, word, field = plan
            names[f"{target}_word"] = partial(primitives.word, word, field)
            bounded = WORDS[made_of].replace("LEAST", str(least)).replace("MOST", str(most))
            return _fill(bounded, target)
        case single:
            return _fill(SINGLE[single], target)


def _fill(template: str, variable: str) -> str:
    return dedent(template).strip("\n").rstrip().replace("X", variable)
