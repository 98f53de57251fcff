"""The Postgres schema of the read model: a table for each projection, and a view with named columns for people."""

import types
from collections.abc import Iterator, Mapping
from typing import Any, Union, get_args, get_origin, get_type_hints

import msgspec

from projections.projection import Projection, Together
from projections.sessions import LISTED

SCALARS = {str: "text", int: "bigint", float: "double precision", bool: "boolean"}

LEAST, MOST = -(1 << 63), (1 << 63) - 1
_LAST_JOBS = f"""(SELECT jsonb_agg(one ORDER BY one->'time', one->>'job' COLLATE "C") FROM (
    SELECT one FROM jsonb_array_elements(jsonb_path_query_array(jsonb_agg({{}}), '$[*][*]')) AS one
    ORDER BY one->'time' DESC, one->>'job' COLLATE "C" DESC LIMIT {LISTED}) AS last)"""  # noqa: S608 - a number of ours
PUT_TOGETHER: Mapping[Together, str] = {
    "sum": f"least(greatest(sum({{}}), {LEAST}), {MOST})::bigint",
    "min": "min({})::bigint",
    "max": "max({})::bigint",
    "last_jobs": _LAST_JOBS,
}
"""Rows that a key rule spreads over partitions are one in their view, as `Projection.merge` has it in Python."""
ALIKE = "min({})"
HIDDEN = frozenset({"recent"})

ViewColumns = Mapping[str, str]
"""Names, and the expressions behind them."""


def table_of(projection: Projection[Any]) -> str:
    return f"{projection.name}_v{projection.version}"


def changed_index(projection: Projection[Any]) -> str:
    """A company's rows, by what changed them last: its feed looks at nothing else."""
    return f"{table_of(projection)}_changed"


def statements(schema: str, projections: Iterator[Projection[Any]] | list[Projection[Any]]) -> Iterator[str]:
    """Each may be run again. The views come after them: see `streams.read_model.views`."""
    yield f'CREATE SCHEMA IF NOT EXISTS "{schema}"'
    yield f"""
        CREATE TABLE IF NOT EXISTS "{schema}".sink_positions (
            changelog text, partition int, next bigint NOT NULL DEFAULT 0, epoch bigint NOT NULL DEFAULT 0,
            PRIMARY KEY (changelog, partition))"""
    yield f"""
        CREATE TABLE IF NOT EXISTS "{schema}".positions (
            projection text, version int, topic text, partition int, next bigint NOT NULL,
            updated_at timestamptz NOT NULL DEFAULT now(), PRIMARY KEY (projection, version, topic, partition))"""
    yield f"""
        CREATE TABLE IF NOT EXISTS "{schema}".refused (
            projection text, version int, topic text, partition int, "offset" bigint, company text NOT NULL,
            event text NOT NULL, reason text NOT NULL, detail text NOT NULL, told_at timestamptz NOT NULL DEFAULT now(),
            PRIMARY KEY (projection, version, topic, partition, "offset"))"""
    yield f'CREATE INDEX IF NOT EXISTS refused_company ON "{schema}".refused (company)'
    yield f"""
        CREATE TABLE IF NOT EXISTS "{schema}".set_aside (
            projection text, version int, partition int, key_sha256 text, key text NOT NULL, company text NOT NULL,
            bytes bigint NOT NULL, changelog_offset bigint NOT NULL, state text NOT NULL, reason text NOT NULL,
            told_at timestamptz NOT NULL DEFAULT now(), PRIMARY KEY (projection, version, partition, key_sha256))"""
    yield f'CREATE INDEX IF NOT EXISTS set_aside_company ON "{schema}".set_aside (company)'
    known = list(projections)
    for projection in known:
        yield from _table(schema, projection)
    # Last: on an older database the indexes above may take a minute. What an older version had; the one above serves
    # what it did.
    for projection in known:
        yield f'DROP INDEX IF EXISTS "{schema}"."{table_of(projection)}_company"'


def _table(schema: str, projection: Projection[Any]) -> Iterator[str]:
    table = table_of(projection)
    yield f"""
        CREATE TABLE IF NOT EXISTS "{schema}"."{table}" (
            key text, partition int, company text NOT NULL, row jsonb NOT NULL,
            topic text NOT NULL, source_partition int NOT NULL, source_offset bigint NOT NULL,
            changelog_offset bigint NOT NULL, PRIMARY KEY (key, partition))"""
    yield f"""
        CREATE INDEX IF NOT EXISTS "{changed_index(projection)}"
        ON "{schema}"."{table}" (company, topic, source_partition, source_offset)"""


def columns_shown(projection: Projection[Any]) -> ViewColumns:
    """Of a projection's view, in order."""
    columns, together = dict(columns_of(projection.state)), projection.together
    # Rows say whose they are, also where their state does not.
    whose = {} if "company" in columns else {"key": "key", "company": "company" if together is None else "min(company)"}
    if together is not None:
        merged = {name: PUT_TOGETHER[together[name]] if name in together else ALIKE for name in columns}
        return whose | {name: merged[name].format(_column(name, kind)) for name, kind in columns.items()}
    place = ("topic", "source_partition", "source_offset")
    shown = {name: _column(name, kind) for name, kind in columns.items()}
    return whose | shown | dict(zip(place, place, strict=True))


def source_of(schema: str, projection: Projection[Any]) -> str:
    """Where a view has its rows from."""
    grouped = "" if projection.together is None else " GROUP BY key"
    return f'FROM "{schema}"."{table_of(projection)}"{grouped}'


def columns_of(state: type[msgspec.Struct]) -> Iterator[tuple[str, str]]:
    """Field names and their Postgres types; what is not a scalar stays jsonb. What most rows have not is no column."""
    hints = get_type_hints(state)
    for field in msgspec.structs.fields(state):
        if field.name not in HIDDEN and field.default is not msgspec.UNSET:
            yield field.name, _kind(hints[field.name])


def _kind(hint: Any) -> str:
    if get_origin(hint) in (Union, types.UnionType):
        (hint,) = (argument for argument in get_args(hint) if argument is not type(None))
    return SCALARS.get(hint, "jsonb")


def _column(name: str, kind: str) -> str:
    if kind == "jsonb":
        return f"row->'{name}'"
    if kind == "bigint":
        # One row with a number beyond bigint would make the view refuse everybody's.
        number = f"(row->>'{name}')::numeric"
        return f"(CASE WHEN {number} BETWEEN {LEAST} AND {MOST} THEN {number}::bigint END)"
    return f"(row->>'{name}')" if kind == "text" else f"(row->>'{name}')::{kind}"
