"""/v1 of the serving worker: what any OpenAI client speaks. `model` is the base's name,
`company/role[@version]`, or what a tuning job called the version that it made."""

import asyncio
import secrets
import time
from collections.abc import AsyncIterator
from typing import Any, TypeVar
from uuid import uuid4

import msgspec
from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse, Response, StreamingResponse

from gpu_workers.serve.port import Choice, Failure, InferenceEngine, Outcome, Question, Snippet
from rillfold.http.operator import COMPANY_HEADER
from rillfold.http.strict_json import StrictRoute
from rillfold.v1.errors import BadRequest, error, failed, of_failure
from rillfold.v1.forms import ChatRequest
from rillfold.v1.question import company_of, question_of
from rillfold.v1.told import Untold, UntoldChoices, calls_told, finish, logprobs, tool_calls, usage

Result = TypeVar("Result")
CLIENT_GONE = 499


def openai_routes(engine: InferenceEngine) -> APIRouter:
    router = APIRouter(prefix="/v1", tags=["models"], route_class=StrictRoute)

    @router.get("/models")
    async def models() -> dict[str, Any]:
        return {"object": "list", "data": [*_models(engine).values()]}

    @router.get("/models/{name:path}", response_model=None)
    async def model(name: str) -> dict[str, Any] | JSONResponse:
        """Looked up among the names that there are, and nowhere else."""
        found = _models(engine).get(name)
        return error(404, f"no model {name!r} here", "model_not_found") if found is None else found

    @router.post("/chat/completions", response_model=None)
    async def chat(body: ChatRequest, request: Request) -> Response:
        try:
            company = company_of(request.headers.get(COMPANY_HEADER))
            question = question_of(body, engine.model, f"chatcmpl-{uuid4().hex}", secrets.randbits(48), company)
        except BadRequest as wrong:
            return error(400, str(wrong), wrong.code, wrong.param)
        talk = _Talk(engine, question, body)
        return await (talk.stream(request) if body.stream else talk.whole(request))

    return router


class _Talk:
    """One question and the ways in which its answer is told."""

    def __init__(self, engine: InferenceEngine, question: Question, body: ChatRequest) -> None:
        self._question, self._body = question, body
        self._pieces: asyncio.Queue[Snippet | None] = asyncio.Queue()
        self._answer = asyncio.ensure_future(engine.answer(question, self._pieces.put_nowait))
        self._answer.add_done_callback(lambda _: self._pieces.put_nowait(None))
        self._created = int(time.time())

    async def whole(self, request: Request) -> Response:
        outcome = await _unless_gone(request, self._answer)
        if outcome is None:
            return Response(status_code=CLIENT_GONE)
        if isinstance(outcome, Failure):
            return failed(outcome)
        calls = calls_told(outcome, self._body.parallel_tool_calls)
        content = outcome.content or (None if calls else "")
        message: dict[str, Any] = {"role": "assistant", "content": content, "refusal": None}
        if calls:
            message["tool_calls"] = tool_calls(outcome.id, calls)
        choice = {"index": 0, "message": message, "finish_reason": finish(outcome)}
        frame = self._frame("chat.completion", [choice]) | {"usage": usage(outcome)}

        def written() -> bytes:
            choice["logprobs"] = self._chances(outcome.choices)
            return msgspec.json.encode(frame)

        body = await asyncio.to_thread(written) if outcome.choices else written()  # chances are the longest part
        return Response(body, media_type="application/json")

    async def stream(self, request: Request) -> Response:
        """An error that is known before the first word is an HTTP error."""
        first = None
        try:
            first = await _unless_gone(request, asyncio.ensure_future(self._begun()))
        finally:
            if first is None:
                self._answer.cancel()
        if first is None:
            return Response(status_code=CLIENT_GONE)
        if isinstance(first, Failure):
            return failed(first)
        return StreamingResponse(self._events(first), media_type="text/event-stream")

    async def _begun(self) -> Snippet | Outcome:
        """The first piece, or the outcome where it has none."""
        first = await self._pieces.get()
        return await self._answer if first is None else first

    async def _events(self, first: Snippet | Outcome) -> AsyncIterator[str]:
        piece = first if isinstance(first, Snippet) else None
        try:
            yield self._chunk({"role": "assistant", "content": ""})
            told, chances = Untold(), UntoldChoices()
            while piece is not None:
                chances.push(piece.choices)
                if words := told.push(piece.text):
                    yield self._chunk({"content": words}, chances.take())
                piece = await self._pieces.get()
            outcome = await self._answer
            if isinstance(outcome, Failure):
                yield _event(of_failure(outcome))
                return
            chances.rest(outcome)
            if words := told.rest(outcome):
                yield self._chunk({"content": words}, chances.take())
            if calls := calls_told(outcome, self._body.parallel_tool_calls):
                yield self._chunk({"tool_calls": tool_calls(outcome.id, calls)}, chances.take())
            yield self._chunk({}, chances.take(), finish(outcome))
            if self._body.stream_options and self._body.stream_options.include_usage:
                yield _event(self._frame("chat.completion.chunk", []) | {"usage": usage(outcome)})
            yield "data: [DONE]\n\n"
        finally:
            self._answer.cancel()  # the client left: its row leaves the batch

    def _chunk(self, delta: dict[str, Any], choices: tuple[Choice, ...] = (), end: str | None = None) -> str:
        choice = {"index": 0, "delta": delta, "finish_reason": end}
        choice["logprobs"] = self._chances(choices) if choices else None
        return _event(self._frame("chat.completion.chunk", [choice]))

    def _chances(self, choices: tuple[Choice, ...]) -> dict[str, Any] | None:
        return None if self._question.logprobs is None else logprobs(choices)

    def _frame(self, kind: str, choices: list[dict[str, Any]]) -> dict[str, Any]:
        frame = {"id": self._question.id, "object": kind, "created": self._created, "model": self._body.model}
        return {**frame, "choices": choices}


async def _unless_gone(request: Request, answer: asyncio.Future[Result]) -> Result | None:
    """None when the client hangs up first. The future is at its end, whichever way."""
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


def _models(engine: InferenceEngine) -> dict[str, dict[str, Any]]:
    """All that may be asked for. A bare name says which version answers for it."""
    answering, known = sorted(engine.answering()), sorted(engine.known())
    bare = {key.name: _model(key.name) | {"version": key.version} for key in answering}
    return {engine.model: _model(engine.model)} | bare | {str(key): _model(str(key)) for key in known}


def _model(name: str) -> dict[str, Any]:
    owner = name.partition("/")[0] if "/" in name else "rillfold"
    return {"id": name, "object": "model", "created": 0, "owned_by": owner}


def _event(content: dict[str, Any]) -> str:
    return f"data: {msgspec.json.encode(content).decode()}\n\n"
