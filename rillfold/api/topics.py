"""Produce by REST: one event or many, JSON or Avro, checked before anything is published."""

import time
from collections.abc import Sequence
from json import JSONDecodeError
from typing import Any
from uuid import uuid4

from fastapi import APIRouter, Request

from rillfold.api.access import Asker, Serving
from rillfold.api.automation import Placed, publish
from rillfold.http.errors import ApiError, NotFound
from rillfold.http.keys import Principal
from rillfold.http.limits import WISH
from rillfold.http.strict_json import parsed
from schemas.adapters import AdapterRequested
from schemas.codec.codec import decode
from schemas.envelope import Event, Origin
from schemas.inference import InferenceRequested
from schemas.jobs import JobRequested
from schemas.rejected import Rejected, Unusable
from schemas.topics import BY_NAME, TOPIC_OF, company_says
from schemas.training import TrainingRequested
from streams.log.outgoing import event_of

router = APIRouter(tags=["topics"])
EVENTS = 1_000
WORK = (JobRequested, InferenceRequested, TrainingRequested, AdapterRequested)
"""Each is as much as WISH requests, however many come in one: a model and a fold have more to do for it."""
DATA = 50
"""So many of the others are one request more: they are bounded in bytes, and small ones are work, too."""
AVRO = ("avro/binary", "application/avro", "application/octet-stream")

_BODY = {
    "requestBody": {
        "required": True,
        "content": {
            "application/json": {
                "schema": {"oneOf": [{"type": "object"}, {"type": "array", "items": {"type": "object"}}]}
            },
            "avro/binary": {"schema": {"type": "string", "format": "binary"}},
        },
    }
}


@router.post("/topics/{topic}", status_code=201, openapi_extra=_BODY)
async def produce(topic: str, request: Request, asker: Asker, serving: Serving) -> list[Placed]:
    """All of the events or none: a batch with a wrong one is refused as a whole, with the place of the wrong one.

    JSON: an event, or a list of events. Avro (`Content-Type: avro/binary`): one record, single-object encoding.
    """
    if topic not in BY_NAME:
        raise NotFound
    kind = request.headers.get("content-type", "application/json").partition(";")[0].strip().lower()
    body = await request.body()
    events = [_of_avro(body)] if kind in AVRO else _of_json(body, asker)
    for event in events:
        _check(event, topic, asker)
    wishes = sum(isinstance(event, WORK) for event in events)
    request.app.state.limiter.charge(asker.company, max(0, WISH * wishes - 1) + (len(events) - wishes) // DATA)
    return await publish(serving, events)


def _of_avro(body: bytes) -> Event:
    # It may be JSON all the same, and without an id: no request is at another's place.
    event = decode(body, Origin(str(uuid4()), 0, 0), time.time_ns() // 1_000_000)
    if isinstance(event, Rejected):
        raise ApiError(422, event.reason, event.detail)
    return event


def _of_json(body: bytes, asker: Principal) -> list[Event]:
    try:
        given = parsed(body)
    except JSONDecodeError as error:
        raise ApiError(422, "invalid_json", error.msg) from error
    events: Sequence[Any] = given if isinstance(given, list) else [given]
    if not 0 < len(events) <= EVENTS:
        raise ApiError(422, "batch_size", f"1 to {EVENTS} events at a time, not {len(events)}")
    return [_event(each, n, asker) for n, each in enumerate(events)]


def _event(fields: Any, n: int, asker: Principal) -> Event:
    if not isinstance(fields, dict):
        raise ApiError(422, "wrong_type", f"event {n} is not an object", {"index": n})
    own = {"company": asker.company} if asker.company else {}
    try:
        return event_of({**own, **fields}, lambda: str(uuid4()), time.time_ns() // 1_000)
    except Unusable as error:
        raise ApiError(422, error.reason, error.detail, {"index": n}) from error


def _check(event: Event, topic: str, asker: Principal) -> None:
    if not asker.may(event.company):
        raise NotFound
    if TOPIC_OF[type(event)].name != topic:
        raise ApiError(422, "wrong_topic", f"{event.type} belongs on {TOPIC_OF[type(event)].name}, not on {topic}")
    if not asker.admin and not company_says(type(event)):
        raise ApiError(403, "forbidden", f"{event.type} is said by workers; a company's key cannot")
