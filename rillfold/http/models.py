"""/v1: the OpenAI-compatible routes of the serving worker, behind the same keys as everything else."""

from __future__ import annotations

from collections.abc import AsyncIterator

import httpx
import msgspec
from fastapi import APIRouter, Request, Response
from fastapi.responses import JSONResponse, StreamingResponse

from rillfold.http.access import Asker, Serving
from rillfold.http.errors import ApiError, NotFound
from rillfold.http.keys import Principal

router = APIRouter(prefix="/v1", tags=["models"])
PASSED_BACK = ("content-type", "retry-after", "x-request-id")
# A long answer on a slow machine; the first byte of a stream comes much sooner.
SECONDS = httpx.Timeout(300.0, connect=3.0)


@router.get("/{path:path}", operation_id="ask_about_models")
@router.post("/{path:path}", operation_id="ask_a_model")
async def forward(path: str, request: Request, asker: Asker, serving: Serving) -> Response:
    """Forwarded to the serving worker. A company asks the base model and its own adapters, nobody else's."""
    if serving.models is None:
        raise ApiError(503, "not_serving", "No serving worker is known here: set RILLFOLD_SERVE_URL.")
    body = await request.body()
    if not asker.admin:
        _own_model(path, body, asker)
    outgoing = serving.models.build_request(
        request.method, f"/v1/{path}", content=body, params=request.query_params, timeout=SECONDS,
        headers={"Content-Type": request.headers.get("content-type", "application/json")},
    )  # fmt: skip
    try:
        answer = await serving.models.send(outgoing, stream=True)
    except httpx.HTTPError as error:
        raise ApiError(503, "not_serving", f"The serving worker does not answer ({type(error).__name__}).") from error
    if path == "models" and not asker.admin:
        return await _own_list(answer, asker)
    headers = {name: answer.headers[name] for name in PASSED_BACK if name in answer.headers}
    return StreamingResponse(_body(answer), answer.status_code, headers)


def _own_model(path: str, body: bytes, asker: Principal) -> None:
    if path.startswith("models/"):
        model: object = path.removeprefix("models/")
    elif path == "models":
        return
    else:
        try:
            given = msgspec.json.decode(body, type=dict)
        except msgspec.DecodeError as error:
            raise ApiError(422, "invalid_json", str(error)) from error
        model = given.get("model")
    if isinstance(model, str) and "/" in model and not asker.may(model.partition("/")[0]):
        raise NotFound


async def _own_list(answer: httpx.Response, asker: Principal) -> JSONResponse:
    content = msgspec.json.decode(await answer.aread(), type=dict)
    mine = [m for m in content.get("data", []) if "/" not in m["id"] or asker.may(m["id"].partition("/")[0])]
    return JSONResponse({**content, "data": mine}, answer.status_code)


async def _body(answer: httpx.Response) -> AsyncIterator[bytes]:
    try:
        async for part in answer.aiter_raw():
            yield part
    finally:
        await answer.aclose()
