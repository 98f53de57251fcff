"""Queries with their proof, and what changes while one looks."""

import asyncio
import re
import time
from collections.abc import AsyncIterator, Mapping
from typing import Annotated, Any

import msgspec
from fastapi import APIRouter, Query, Response
from fastapi.responses import StreamingResponse
from pydantic import BaseModel

from projections.projection import Projection
from rillfold.api.access import Asker, Serving, StillKnown, company_of
from rillfold.http.errors import ApiError, NotFound, answer_of
from rillfold.http.keys import Principal
from rillfold.http.passed_on import passed_on
from rillfold.wiring import Services
from schemas.errors import Retry, RillfoldError
from streams.read_model.feed import Positions
from streams.read_model.reads import EventPlace, ProjectedRow

router = APIRouter(tags=["projections"])
PAGE = 200
PLACES = 100
WAIT_SECONDS = 30.0
LOOK_SECONDS = 0.05
FEED_SECONDS = 0.25
FEED_BEAT_SECONDS = 15.0
FEED: dict[str, Any] = {"content": {"text/event-stream": {"schema": {"type": "string"}}}}
_PLACE = re.compile(r"([A-Za-z0-9._-]+)/(\d{1,9})/(\d{1,18})")

MinOffset = Annotated[
    list[str],
    Query(
        max_length=PLACES,
        description="topic/partition/offset of an event that the answer must know (as a write answered it).",
    ),
]
Wait = Annotated[float, Query(ge=0, le=WAIT_SECONDS, description="Seconds to wait for min_offset before 409.")]


class ProofBody(BaseModel):
    """How far the answer knows the log. `positions` is the next offset of each source partition; `lag` what is left."""

    projection: str
    version: int
    positions: dict[str, dict[int, int]]
    lag: dict[str, dict[int, int]]


class FoundRow(BaseModel):
    key: str
    topic: str
    partition: int
    offset: int
    """Where the event stands that changed the row last."""
    row: dict[str, Any]


class RowAndProof(FoundRow):
    proof: ProofBody


class RowsAndProof(BaseModel):
    rows: list[FoundRow]
    next: str | None
    """`after` of the next page; null on the last."""
    proof: ProofBody


@router.get("/projections")
async def projections(asker: Asker, serving: Serving) -> list[ProofBody]:
    """All projections, and how far each is."""
    return [await _proof(serving, projection, asker.company) for projection in serving.installed.projections.values()]


@router.get("/projections/{name}", response_model=RowsAndProof)
async def rows(
    name: str,
    asker: Asker,
    serving: Serving,
    company_id: str | None = None,
    after: str | None = None,
    limit: Annotated[int, Query(ge=1, le=PAGE)] = 50,
    min_offset: MinOffset = [],  # noqa: B006
    wait: Wait = 5.0,
) -> Response:
    """A company's rows, by key; fewer than `limit` where they are large. The admin sees all companies' by default."""
    projection, company = _known(serving, name), _scope(asker, company_id)
    await _until(serving, projection, company, min_offset, wait)
    # Read before the rows: the rows know at least as much as their proof says.
    proof = await _proof(serving, projection, company)
    page = await serving.reads.page(projection, company, after, limit)
    return passed_on({"rows": [_found(row) for row in page.rows], "next": page.next, "proof": proof.model_dump()})


@router.get("/projections/{name}/changes", response_class=StreamingResponse, responses={200: FEED})
async def changes(
    name: str, asker: Asker, serving: Serving, known: StillKnown, company_id: str | None = None
) -> StreamingResponse:
    """Server-sent events: each row as it changes from now on. A slow reader gets a row's newest state, not each one."""
    projection, company = _known(serving, name), _scope(asker, company_id)
    start = await serving.reads.positions(projection, company)
    return StreamingResponse(_feed(serving, projection, company, start, known), media_type="text/event-stream")


@router.get("/projections/{name}/{key:path}", response_model=RowAndProof)
async def row(
    name: str,
    key: str,
    asker: Asker,
    serving: Serving,
    min_offset: MinOffset = [],  # noqa: B006
    wait: Wait = 5.0,
) -> Response:
    """One row by its key, which always begins with the company."""
    projection = _known(serving, name)
    company = key.partition("/")[0]
    if not asker.may(company):
        raise NotFound
    await _until(serving, projection, company, min_offset, wait)
    proof = await _proof(serving, projection, company)
    found = await serving.reads.row(projection, key)
    if found is None:
        raise NotFound
    return passed_on(_found(found) | {"proof": proof.model_dump()})


def _known(serving: Services, name: str) -> Projection[Any]:
    if name not in serving.installed.projections:
        raise NotFound
    return serving.installed.projections[name]


def _scope(asker: Principal, company: str | None) -> str | None:
    """The admin may look at all companies at once."""
    return None if asker.admin and company is None else company_of(asker, company)


def _found(row: ProjectedRow) -> dict[str, Any]:
    """A `FoundRow`."""
    return {"key": row.key, **row.at._asdict(), "row": row.compact}


async def _proof(serving: Services, projection: Projection[Any], company: str | None) -> ProofBody:
    positions = await serving.reads.positions(projection, company)
    ends = {topic: await serving.log.ends(topic) for topic in map(serving.names.wire, projection.topics)}
    lag = {topic: {p: end - positions.get(topic, {}).get(p, 0) for p, end in of.items()} for topic, of in ends.items()}
    return ProofBody(projection=projection.name, version=projection.version, positions=positions, lag=lag)


async def _until(
    serving: Services, projection: Projection[Any], company: str | None, wanted: list[str], seconds: float
) -> None:
    """Read your writes: returns once the rows know every wanted event; 409 when the time is over."""
    places = [_place(text) for text in wanted]
    until = time.monotonic() + seconds
    while places and (behind := _behind(await serving.reads.positions(projection, company), places)):
        if time.monotonic() >= until:
            detail = {"wanted": wanted, "positions": await serving.reads.positions(projection, company)}
            place = "/".join(map(str, behind[0]))
            raise ApiError(409, "behind", f"{projection.name} has not folded {place} yet; ask again.", detail)
        await asyncio.sleep(LOOK_SECONDS)


def _place(text: str) -> EventPlace:
    match = _PLACE.fullmatch(text)
    if match is None:
        raise ApiError(422, "bad_min_offset", "min_offset is topic/partition/offset")
    return EventPlace(match[1], int(match[2]), int(match[3]))


def _behind(positions: Mapping[str, Mapping[int, int]], places: list[EventPlace]) -> list[EventPlace]:
    return [p for p in places if positions.get(p.topic, {}).get(p.partition, 0) <= p.offset]


async def _feed(
    serving: Services, projection: Projection[Any], company: str | None, since: Positions, known: StillKnown
) -> AsyncIterator[str]:
    yield ": rows as they change\n\n"
    beat = time.monotonic()
    while True:
        try:
            rows, since, more = await serving.reads.changed(projection, company, since)
        except Retry:
            return  # the database is away: who follows comes again, and is told then
        try:
            known()
        except ApiError as error:
            yield f"event: error\ndata: {bytes(answer_of(error).body).decode()}\n\n"
            return
        except (RillfoldError, OSError):
            return  # nobody can be let in now: who follows is told when it comes again
        for row in rows:
            yield f"event: row\ndata: {msgspec.json.encode(_found(row)).decode()}\n\n"
        if time.monotonic() - beat > FEED_BEAT_SECONDS:
            beat = time.monotonic()
            yield ": still here\n\n"
        # Where more waits it comes in its turn, like everybody's.
        await asyncio.sleep(0 if more else FEED_SECONDS)
