"""Decoding an envelope and its event against both Avro libraries, which read the same bytes into plain dicts."""

import json
from collections.abc import Callable
from io import BytesIO
from time import process_time
from uuid import UUID

import avro.io
import avro.schema
import msgspec
from fastavro import schemaless_reader, schemaless_writer

from bench.harness import Figures, Ratio, compare
from schemas.codec.catalog import catalog
from schemas.codec.codec import decode, decode_batch, encode
from schemas.company import AgentOutputIngested, RecordIngested, ToolUse
from schemas.envelope import Event, Origin
from schemas.jobs import JobStepped
from streams.log.port import Record

EVENTS = 20_000
BATCH = 500
SLOW_EVENTS = 1_000
"""As many as Apache avro reads in the same time."""


def events(count: int) -> list[Event]:
    """A stream as a fold sees it: records, steps of jobs, and outputs with nested tool calls."""
    return [(_record, _step, _output)[n % 3](n) for n in range(count)]


def _envelope(n: int) -> dict[str, object]:
    first = str(UUID(int=n // 10 + 1, version=4))
    moment = 1_790_000_000_000_000 + n * 1000
    return {"id": str(UUID(int=n, version=4)), "company": "acme_corp", "time": moment, "correlation": first}


def _record(n: int) -> Event:
    data = json.dumps({"number": n, "customer": f"c-{n % 97}", "total": n * 7 % 1000, "state": "paid"})
    return RecordIngested(**_envelope(n), entity=f"order-{n % 1000}", kind="order", data=data)  # type: ignore[arg-type]


def _step(n: int) -> Event:
    cause = str(UUID(int=n + 1, version=4))
    return JobStepped(
        **_envelope(n),  # type: ignore[arg-type]
        causation=cause,
        job=f"job-{n}",
        step=n % 5,
        kind="tool_proposed",
        detail="weather of Oslo",
    )


def _output(n: int) -> Event:
    return AgentOutputIngested(
        **_envelope(n),  # type: ignore[arg-type]
        agent="support",
        prompt="What is the weather in Oslo?",
        output="It rains.",
        tool_calls=(ToolUse(name="weather", arguments='{"city":"Oslo"}'),),
        success=n % 4 != 0,
    )


def rate(count: int, work: Callable[[], None]) -> Figures:
    start = process_time()
    work()
    return {"events_per_s": count / (process_time() - start)}


def main() -> None:
    stream = events(EVENTS)
    values = [encode(event) for event in stream]
    schemas = [catalog().by_class[type(event)].schema for event in stream]
    apache = {id(s): avro.io.DatumReader(avro.schema.parse(json.dumps(s))) for s in schemas}
    records = [Record("company-data", 0, n, 0, None, value) for n, value in enumerate(values)]
    origin = Origin("company-data", 0, 0)

    def ours() -> None:
        for value in values:
            decode(value, origin, 0)

    def batch() -> None:
        for start in range(0, EVENTS, BATCH):
            decode_batch("company-data", 0, records[start : start + BATCH])

    def bare_fastavro() -> None:
        for value, schema in zip(values, schemas, strict=True):
            schemaless_reader(BytesIO(value[10:]), schema, None)

    plain = [msgspec.to_builtins(event, builtin_types=(bytes,)) for event in stream]

    def write() -> None:
        for event in stream:
            encode(event)

    def bare_fastavro_write() -> None:
        for fields, schema in zip(plain, schemas, strict=True):
            schemaless_writer(BytesIO(), schema, fields)

    def apache_avro() -> None:
        for value, schema in zip(values[:SLOW_EVENTS], schemas, strict=False):
            apache[id(schema)].read(avro.io.BinaryDecoder(BytesIO(value[10:])))

    compare(
        "codec",
        {
            "rillfold decode": lambda: rate(EVENTS, ours),
            "rillfold decode_batch": lambda: rate(EVENTS, batch),
            "fastavro schemaless_reader": lambda: rate(EVENTS, bare_fastavro),
            "Apache avro DatumReader": lambda: rate(SLOW_EVENTS, apache_avro),
            "rillfold encode": lambda: rate(EVENTS, write),
            "fastavro schemaless_writer": lambda: rate(EVENTS, bare_fastavro_write),
        },
        {
            "fastavro": Ratio("events_per_s", "rillfold decode_batch", "fastavro schemaless_reader"),
            "encode": Ratio("events_per_s", "rillfold encode", "fastavro schemaless_writer"),
            "avro": Ratio("events_per_s", "rillfold decode_batch", "Apache avro DatumReader"),
        },
        runs=7,
    )


if __name__ == "__main__":
    main()
