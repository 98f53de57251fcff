"""/v1 of the serving worker: what any OpenAI client speaks. `model` is the base's name,
`company/role[@version]`, or what a tuning job called the version that it made."""

import asyncio
import secrets
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from heapq import nlargest, nsmallest
from typing import Any, TypeVar
from uuid import uuid4

import msgspec
from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse, Response, StreamingResponse

from gpu_workers.serve.port import AdapterKey, Choice, Failure, InferenceEngine, Outcome, Question, Snippet, spelled
from rillfold.http.operator import COMPANY_HEADER
from rillfold.http.strict_json import StrictRoute
from rillfold.v1.errors import BadRequest, error, failed, of_failure
from rillfold.v1.forms import ChatRequest
from rillfold.v1.question import company_of, question_of
from rillfold.v1.told import Untold, UntoldChoices, calls_told, finish, logprobs, tool_calls, usage
from schemas import adapters

Result = TypeVar("Result")
CLIENT_GONE = 499
LISTED = 1_000
"""Bare names, and versions, the highest; any other is found by its name."""


def openai_routes(engine: InferenceEngine) -> APIRouter:
    router = APIRouter(prefix="/v1", tags=["models"], route_class=StrictRoute)

    @router.get("/models", response_model=None)
    async def models(request: Request, name: str | None = None) -> Response:
        """All that may be asked for, or the one of that name: of the company for whom is asked, the base beside."""
        try:
            company = company_of(request.headers.get(COMPANY_HEADER))
        except BadRequest as wrong:
            return error(400, str(wrong), wrong.code, wrong.param)
        listed = _models(engine, company) if name is None else [*_one(engine, company, name)]
        return Response(msgspec.json.encode({"object": "list", "data": listed}), media_type="application/json")

    @router.get("/models/{name:path}", response_model=None)
    async def model(name: str) -> dict[str, Any] | JSONResponse:
        """Looked up among the names that there are, and nowhere else."""
        found = next(_one(engine, None, name), None)
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


def _models(engine: InferenceEngine, company: str | None) -> list[dict[str, Any]]:
    """A bare name says which version answers for it. Of a company so many of each kind: what it says costs others."""
    answering: Sequence[AdapterKey] = engine.answering(company)
    known: Sequence[AdapterKey] = engine.known(company)
    if company is not None:
        answering, known = nsmallest(LISTED, answering), nlargest(LISTED, known, key=lambda key: key.version)
    versions = (_model(str(key)) for key in sorted(known))
    return [_model(engine.model), *(_bare(key) for key in sorted(answering)), *versions]


def _one(engine: InferenceEngine, company: str | None, name: str) -> Iterator[dict[str, Any]]:
    if name == engine.model:
        yield _model(name)
        return
    own, version = spelled(name)
    if company not in (None, adapters.company_of(own)) or (key := engine.found(own, version)) is None:
        return
    if name in (key.name, str(key)):  # as it is spelled in the list
        yield _bare(key) if version is None else _model(name)


def _bare(key: AdapterKey) -> dict[str, Any]:
    return _model(key.name) | {"version": key.version}


def _model(name: str) -> dict[str, Any]:
    owner = name.partition("/")[0] if "/" in name else "rillfold"
    return {"id": name, "object": "model", "created": 0, "owned_by": owner}


def _event(content: dict[str, Any]) -> str:
    return f"data: {msgspec.json.encode(content).decode()}\n\n"
