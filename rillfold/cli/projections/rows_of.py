"""What `rillfold query` asks for and shows. On its own, since it takes longer to import than a command line to read."""

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from projections.projection import Projection
from rillfold.app.installed import installed
from rillfold.cli.terminal.answers import moment
from rillfold.cli.terminal.table import GAP
from rillfold.event_log import event_log, read_model
from rillfold.profiles import of_the_settings
from rillfold.settings import Settings
from schemas.errors import Poison
from streams.read_model.reads import ProjectedRow

CELL = 40
FIRST = ("status", "reason")
IDS = ("updated_by", "correlation", "event", "last")
Proof = dict[str, Any]


class NoSuchRow(Poison):
    """Nothing in the projection has this key."""


async def read(
    settings: Settings, projection: Projection[Any], key: str | None, company: str | None, limit: int
) -> tuple[list[ProjectedRow], Proof]:
    installed(settings)
    names = settings.topic_names()
    async with event_log(of_the_settings(settings)) as log, read_model(settings) as reads:
        positions = await reads.positions(projection, company)
        ends = {topic: await log.ends(topic) for topic in map(names.wire, projection.topics)}
        proof = {"projection": projection.name, "version": projection.version} | _progress(positions, ends)
        if key is None:
            return await reads.rows(projection, company, None, limit), proof
        row = await reads.row(projection, key)
    if row is None:
        raise NoSuchRow(f"{projection.name} has no row {key!r}: `rillfold query {projection.name}` lists its keys.")
    return [row], proof


def _progress(positions: Mapping[str, Mapping[int, int]], ends: Mapping[str, Mapping[int, int]]) -> Proof:
    lag = {topic: {p: end - positions.get(topic, {}).get(p, 0) for p, end in of.items()} for topic, of in ends.items()}
    return {"positions": positions, "lag": lag}


def many(projection: Projection[Any], rows: Sequence[ProjectedRow], width: int) -> tuple[list[str], list[list[str]]]:
    """Heads and rows: the first plain fields that say something in some row, as many as fit, and in any case what
    became of a row; the rest is in --json."""
    heads = ["key"]
    width -= max((len(row.key) for row in rows), default=3)
    for name, usual in _fields(projection):
        cells = [_short(name, row) for row in rows if _says(row, name, usual)]
        needed = max(map(len, (name, *cells))) + len(GAP)
        if cells and (needed <= width or len(heads) == 1 or name in FIRST):
            width -= needed
            heads.append(name)
    return heads, [[row.key, *(_short(name, row) for name in heads[1:])] for row in rows]


def _short(name: str, row: ProjectedRow) -> str:
    """A sentence is cut, a word never: it may be an id, which somebody copies."""
    text = _text(name, row.value.get(name)).replace("\n", " ")
    return text if len(text) <= CELL or " " not in text else f"{text[: CELL - 1]}\u2026"


def _fields(projection: Projection[Any]) -> list[tuple[str, object]]:
    """What became of a row, and why, before all else that it says."""
    fields = [(field.name, field.default) for field in msgspec.structs.fields(projection.state)]
    return sorted(fields, key=lambda field: FIRST.index(field[0]) if field[0] in FIRST else len(FIRST))


def _says(row: ProjectedRow, name: str, usual: object) -> bool:
    """Not what every row says, not in the key already, and short enough for a cell."""
    value = row.value.get(name)
    in_key = name in IDS or (isinstance(value, str) and value in row.key)
    return value is not None and value != usual and not in_key and not isinstance(value, list | dict)


def one(projection: Projection[Any], row: ProjectedRow) -> list[tuple[str, str]]:
    return [(name, _text(name, row.value.get(name))) for name, _ in _fields(projection)]


def _text(name: str, value: object) -> str:
    if isinstance(value, int) and name.endswith("_at"):
        return moment(value)
    return "" if value is None else value if isinstance(value, str) else msgspec.json.encode(value).decode()


def told(proof: Proof) -> str:
    lag = sum(max(0, left) for of in proof["lag"].values() for left in of.values())
    places = ", ".join(f"{t}/{p}:{n}" for t, of in sorted(proof["positions"].items()) for p, n in sorted(of.items()))
    told = f"{proof['projection']} v{proof['version']}, {lag} events behind the log; folded up to {places or 'nothing'}"
    lost = [f"{t}/{p}" for t, of in sorted(proof["lag"].items()) for p, left in sorted(of.items()) if left < 0]
    return told + (f"; not in the log any more: the end of {', '.join(lost)}" if lost else "")
