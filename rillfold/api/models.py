"""/v1: three routes of the serving worker, behind the same keys as everything else. No name becomes a path."""

from collections.abc import AsyncIterator, Mapping
from typing import Annotated, Any

import httpx
import msgspec
from fastapi import APIRouter, Path, Response
from fastapi.responses import StreamingResponse
from pydantic import BaseModel, ConfigDict

from processors.tuning.names import tuned_model
from rillfold.api.access import Asker, Serving
from rillfold.http.errors import ApiError, NotFound
from rillfold.http.keys import Principal
from rillfold.http.operator import COMPANY_HEADER
from rillfold.http.strict_json import StrictRoute
from rillfold.wiring import Services

router = APIRouter(prefix="/v1", tags=["models"], route_class=StrictRoute)
PASSED_BACK = ("content-type", "retry-after", "x-request-id")
# A long answer on a slow machine; the first byte of a stream comes much sooner.
SECONDS = httpx.Timeout(300.0, connect=3.0)
AGAIN = "5"
Name = Annotated[str, Path(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.@-]{0,199}$")]
BaseName = Annotated[str, Path(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.:@-]{0,499}$")]
_STREAM: Mapping[str, Any] = {"content": {"application/json": {}, "text/event-stream": {"schema": {"type": "string"}}}}


class Model(BaseModel):
    model_config = ConfigDict(extra="allow")
    id: str
    object: str = "model"


class Models(BaseModel):
    object: str = "list"
    data: list[Model]


class ChatBody(BaseModel):
    """What is asked. Everything but the model's name is for the serving worker to judge."""

    model_config = ConfigDict(extra="allow")
    model: str


@router.get("/models", response_model=Models)
async def models(asker: Asker, serving: Serving) -> Response:
    """The base model and the company's own adapters, nobody else's; the thousand newest, where there are more."""
    told = msgspec.json.encode({"object": "list", "data": await _own(serving, asker)})
    return Response(told, media_type="application/json")


@router.get("/models/{name}")
async def base_model(name: BaseName, asker: Asker, serving: Serving) -> Model:
    """The base model, by its name; or what a tuning job made of it, by the name that the job gave it."""
    tuned = tuned_model(name)
    if tuned is None or tuned.base != serving.settings.base_name():
        return await _one(serving, asker, name)
    made = await _one(serving, asker, f"{tuned.adapter}@{tuned.version}")
    return made.model_copy(update={"id": name})


@router.get("/models/{company}/{role}")
async def adapter(company: Name, role: Name, asker: Asker, serving: Serving) -> Model:
    """One of the company's own adapters, or a version of it."""
    return await _one(serving, asker, f"{company}/{role}")


@router.post("/chat/completions", response_class=Response, responses={200: dict(_STREAM)})
async def ask_a_model(given: ChatBody, asker: Asker, serving: Serving) -> Response:
    """Ask the base model or one of the company's own adapters, as any OpenAI client does."""
    if not _may(asker, given.model, serving):
        raise NotFound
    asked = {**(given.model_extra or {}), "model": given.model}
    # Written anew from what was checked: the worker reads the same, also where a name stood there twice.
    answer = await _send(serving, asker, "POST", "/v1/chat/completions", msgspec.json.encode(asked))
    headers = {name: answer.headers[name] for name in PASSED_BACK if name in answer.headers}
    return StreamingResponse(_body(answer), answer.status_code, headers)


def _may(asker: Principal, model: str, serving: Services) -> bool:
    """Adapters are called company/role, or by the name that their job gave them; the base belongs to everybody."""
    base = serving.settings.base_name()
    tuned = tuned_model(model)
    company, slash, role = (tuned.adapter if tuned else model).partition("/")
    own = asker.may(company) if slash and role else asker.admin
    return own or model == base


async def _one(serving: Services, asker: Principal, name: str) -> Model:
    """Looked up among what the asker may see, and said nowhere but as a query's value."""
    if not _may(asker, name, serving):
        raise NotFound
    found = [each for each in await _own(serving, asker, name) if each["id"] == name]
    if not found:
        raise NotFound
    return Model(**found[0])


async def _own(serving: Services, asker: Principal, name: str | None = None) -> list[dict[str, Any]]:
    answer = await _send(serving, asker, "GET", "/v1/models", b"", name)
    try:
        content = msgspec.json.decode(await answer.aread(), type=dict[str, Any])
        listed: list[dict[str, Any]] = [each for each in content["data"] if _may(asker, each["id"], serving)]
    except (httpx.HTTPError, msgspec.DecodeError, KeyError, TypeError, ValueError, AttributeError) as error:
        raise _away(f"says no list of models ({type(error).__name__})") from error
    finally:
        await answer.aclose()
    return listed


async def _send(
    serving: Services, asker: Principal, method: str, path: str, body: bytes, name: str | None = None
) -> httpx.Response:
    """`path` is one of ours. What is wrong between us and the worker is nobody's but the operator's concern."""
    if serving.models is None:
        raise ApiError(
            503, "not_serving", "No serving worker is known here: set RILLFOLD_SERVE_URL.", Retry_After=AGAIN
        )
    headers = {"Content-Type": "application/json", **({COMPANY_HEADER: asker.company} if asker.company else {})}
    one = {} if name is None else {"name": name}
    outgoing = serving.models.build_request(method, path, content=body, timeout=SECONDS, headers=headers, params=one)
    try:
        answer = await serving.models.send(outgoing, stream=True)
    except httpx.HTTPError as error:
        raise _away(f"does not answer ({type(error).__name__})") from error
    if answer.status_code in (401, 403, 421) or answer.status_code >= 500 or answer.is_redirect:
        await answer.aclose()
        raise _away(f"answered {answer.status_code}", answer.headers.get("retry-after", AGAIN))
    return answer


def _away(why: str, again: str = AGAIN) -> ApiError:
    hint = "See its log; the API and it must have the same RILLFOLD_SERVE_TOKEN, and it must know its name as its host."
    return ApiError(503, "not_serving", f"The serving worker {why}. {hint}", Retry_After=again)


async def _body(answer: httpx.Response) -> AsyncIterator[bytes]:
    try:
        async for part in answer.aiter_raw():
            yield part
    finally:
        await answer.aclose()
