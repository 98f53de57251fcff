"""/v1 of the serving worker: what any OpenAI client speaks. `model` is the base's name or `company/role[@version]`."""

import asyncio
import json
import secrets
import time
from collections.abc import AsyncIterator
from typing import Any
from uuid import uuid4

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse, Response, StreamingResponse

from gpu_workers.serve.port import Answer, Failure, InferenceEngine, Outcome, Question
from rillfold.http.operator import COMPANY_HEADER
from rillfold.http.strict_json import StrictRoute
from rillfold.v1.forms import BadRequest, ChatRequest, company_of, question_of

CALL = "<tool_call>"
# reason -> HTTP status; OpenAI's clients retry 429 and 5xx, and nothing else.
STATUS = {
    "unknown_adapter": 404,
    "unknown_adapter_version": 404,
    "base_mismatch": 409,
    "unusable_adapter": 409,
    "prompt_too_long": 400,
    "too_long": 400,
    "bad_question": 400,
    "not_finite": 409,
    "queue_full": 429,
    "adapter_unreadable": 503,
    "engine_stopped": 503,
}
CLIENT_GONE = 499


def openai_routes(engine: InferenceEngine) -> APIRouter:
    router = APIRouter(prefix="/v1", tags=["models"], route_class=StrictRoute)

    @router.get("/models")
    async def models() -> dict[str, Any]:
        return {"object": "list", "data": [_model(name) for name in _names(engine)]}

    @router.get("/models/{name:path}", response_model=None)
    async def model(name: str) -> dict[str, Any] | JSONResponse:
        """Looked up among the names that there are, and nowhere else."""
        return _model(name) if name in _names(engine) else _error(404, f"no model {name!r} here", "model_not_found")

    @router.post("/chat/completions", response_model=None)
    async def chat(body: ChatRequest, request: Request) -> Response:
        try:
            company = company_of(request.headers.get(COMPANY_HEADER))
            question = question_of(body, engine.model, f"chatcmpl-{uuid4().hex}", secrets.randbits(48), company)
        except BadRequest as error:
            return _error(400, str(error), error.code, error.param)
        talk = _Talk(engine, question, body)
        return await (talk.stream() if body.stream else talk.whole(request))

    return router


class _Talk:
    """One question and the ways in which its answer is told."""

    def __init__(self, engine: InferenceEngine, question: Question, body: ChatRequest) -> None:
        self._question, self._body = question, body
        self._pieces: asyncio.Queue[str | None] = asyncio.Queue()
        self._answer = asyncio.ensure_future(engine.answer(question, lambda piece: self._pieces.put_nowait(piece.text)))
        self._answer.add_done_callback(lambda _: self._pieces.put_nowait(None))
        self._created = int(time.time())

    async def whole(self, request: Request) -> Response:
        outcome = await _unless_gone(request, self._answer)
        if outcome is None:
            return Response(status_code=CLIENT_GONE)
        if isinstance(outcome, Failure):
            return _failed(outcome)
        message: dict[str, Any] = {"role": "assistant", "content": outcome.content or None, "refusal": None}
        if outcome.calls:
            message["tool_calls"] = _tool_calls(outcome)
        choice = {"index": 0, "message": message, "finish_reason": _finish(outcome), "logprobs": None}
        return JSONResponse(self._frame("chat.completion", [choice]) | {"usage": _usage(outcome)})

    async def stream(self) -> Response:
        """An error that is known before the first word is an HTTP error."""
        first = await self._pieces.get()
        if first is None and isinstance(outcome := await self._answer, Failure):
            return _failed(outcome)
        return StreamingResponse(self._events(first), media_type="text/event-stream")

    async def _events(self, piece: str | None) -> AsyncIterator[str]:
        try:
            yield self._chunk({"role": "assistant", "content": ""})
            told = _Untold()
            while piece is not None:
                if words := told.push(piece):
                    yield self._chunk({"content": words})
                piece = await self._pieces.get()
            outcome = await self._answer
            if isinstance(outcome, Failure):
                yield _event(openai_error(outcome.detail, outcome.reason))
                return
            if words := told.rest(outcome):
                yield self._chunk({"content": words})
            if outcome.calls:
                yield self._chunk({"tool_calls": _tool_calls(outcome)})
            yield self._chunk({}, _finish(outcome))
            if self._body.stream_options and self._body.stream_options.include_usage:
                yield _event(self._frame("chat.completion.chunk", []) | {"usage": _usage(outcome)})
            yield "data: [DONE]\n\n"
        finally:
            self._answer.cancel()  # the client left: its row leaves the batch

    def _chunk(self, delta: dict[str, Any], finish: str | None = None) -> str:
        choice = {"index": 0, "delta": delta, "finish_reason": finish, "logprobs": None}
        return _event(self._frame("chat.completion.chunk", [choice]))

    def _frame(self, kind: str, choices: list[dict[str, Any]]) -> dict[str, Any]:
        frame = {"id": self._question.id, "object": kind, "created": self._created, "model": self._body.model}
        return {**frame, "choices": choices}


class _Untold:
    """Lets text out, but nothing from where a tool call may begin: calls are told whole, when they are parsed."""

    def __init__(self) -> None:
        self._text, self._told = "", 0

    def push(self, piece: str) -> str:
        self._text += piece
        start = self._text.find(CALL)
        end = start if start >= 0 else len(self._text) - _overlap(self._text)
        return self._tell(len(self._text[:end].rstrip()))

    def rest(self, outcome: Answer) -> str:
        self._text = outcome.content
        return self._tell(len(outcome.content))

    def _tell(self, end: int) -> str:
        words, self._told = self._text[self._told : end], max(self._told, end)
        return words


def _overlap(text: str) -> int:
    """How much of the text's end may be the beginning of a call."""
    return next((n for n in range(min(len(CALL), len(text)), 0, -1) if text.endswith(CALL[:n])), 0)


async def _unless_gone(request: Request, answer: asyncio.Future[Outcome]) -> Outcome | None:
    """None, and the row out of the batch, when the client hangs up first."""
    gone = asyncio.ensure_future(_hung_up(request))
    try:
        either: set[asyncio.Future[Any]] = {answer, gone}
        await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
        return answer.result() if answer.done() else None
    finally:
        gone.cancel()
        answer.cancel()


async def _hung_up(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


def _names(engine: InferenceEngine) -> list[str]:
    keys = engine.known()
    return [engine.model, *sorted({key.name for key in keys}), *sorted(map(str, keys))]


def _model(name: str) -> dict[str, Any]:
    owner = name.partition("/")[0] if "/" in name else "rillfold"
    return {"id": name, "object": "model", "created": 0, "owned_by": owner}


def _tool_calls(answer: Answer) -> list[dict[str, Any]]:
    return [
        {
            "index": i,
            "id": f"call_{answer.id.removeprefix('chatcmpl-')}_{i}",
            "type": "function",
            "function": {"name": call.name, "arguments": call.arguments},
        }
        for i, call in enumerate(answer.calls)
    ]


def _finish(answer: Answer) -> str:
    return "tool_calls" if answer.calls else answer.finish_reason


def _usage(answer: Answer) -> dict[str, Any]:
    return {
        "prompt_tokens": answer.prompt_tokens,
        "completion_tokens": answer.completion_tokens,
        "total_tokens": answer.prompt_tokens + answer.completion_tokens,
        "prompt_tokens_details": {"cached_tokens": answer.cached_tokens},
    }


def _failed(failure: Failure) -> JSONResponse:
    status = STATUS.get(failure.reason, 503 if failure.again else 422)
    code = "model_not_found" if status == 404 else failure.reason
    headers = {"Retry-After": "1"} if failure.again or status == 503 else None
    return _error(status, failure.detail, code, "model" if status == 404 else None, headers)


def _error(
    status: int, message: str, code: str, param: str | None = None, headers: dict[str, str] | None = None
) -> JSONResponse:
    return JSONResponse(openai_error(message, code, param, status), status, headers=headers)


def openai_error(message: str, code: str, param: str | None = None, status: int = 503) -> dict[str, Any]:
    kind = "server_error" if status >= 500 else "rate_limit_error" if status == 429 else "invalid_request_error"
    return {"error": {"message": message, "type": kind, "param": param, "code": code}}


def _event(content: dict[str, Any]) -> str:
    return f"data: {json.dumps(content, ensure_ascii=False)}\n\n"
