"""/v1: the OpenAI-compatible routes of the serving worker, behind the same keys as everything else."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

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
    if path not in ("models", "chat/completions") and not path.startswith("models/"):
        raise NotFound
    body = await request.body()
    model = _model(path, body)
    if model is not None and model != serving.settings.base_model and not _may(asker, model):
        raise NotFound
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


def _model(path: str, body: bytes) -> str | None:
    """The model that a request names."""
    if path.startswith("models"):
        return path.removeprefix("models").strip("/") or None
    try:
        model = msgspec.json.decode(body, type=dict[str, Any]).get("model")
    except (msgspec.DecodeError, RecursionError) as error:
        raise ApiError(422, "invalid_json", str(error)) from error
    return model if isinstance(model, str) else None


def _may(asker: Principal, model: str) -> bool:
    """Adapters are called company/role; the base model belongs to everybody."""
    return "/" not in model or asker.may(model.partition("/")[0])


async def _own_list(answer: httpx.Response, asker: Principal) -> JSONResponse:
    content = msgspec.json.decode(await answer.aread(), type=dict)
    mine = [each for each in content.get("data", []) if _may(asker, each["id"])]
    return JSONResponse({**content, "data": mine}, answer.status_code)


async def _body(answer: httpx.Response) -> AsyncIterator[bytes]:
    try:
        async for part in answer.aiter_raw():
            yield part
    finally:
        await answer.aclose()
