"""What is under way for each company, in this process; and a request's body, bounded in bytes and in time."""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict
from collections.abc import Callable

from starlette.datastructures import Headers
from starlette.types import Message, Receive

from processors.limits import Busy, CompanyBounds, RequestCost, Usage, admit, charged, finished, forgettable
from processors.tuning.names import FILE_BYTES
from rillfold.http.errors import ApiError
from rillfold.settings import Settings

BODY_BYTES = 8 << 20
BODY_SECONDS = 60.0
"""A body that takes longer is not waited for."""
FILES = ("POST", "/v1/files")
FILE_SECONDS = 600.0
"""A file's body waits on the disk until it is there whole: it may be larger, and come slower."""
STRANGERS = CompanyBounds(at_once=1, a_second=50.0, bytes_a_minute=1, prompts=1)
"""Requests without a key that is known, of all the world together."""
WISH = 5
"""Requests that a job, a question to the log or a run is as much as: what follows it is work of everybody's workers."""
WISHES = ("/company-automation/process", "/company-automation/train-adapter", "/v1/fine_tuning/jobs")
CHAT = "/v1/chat/completions"
TOLD = {
    "too_many_at_once": "This company has as many requests under way as it may: wait for one to end.",
    "too_many_prompts": "This company has as many questions to models under way as it may: wait for one to end.",
    "too_often": "This company asks more often than it may.",
    "too_many_bytes": "This company sends more bytes a minute than it may.",
}


class ClientLeft(Exception):
    """It hung up while it sent: there is nobody to answer."""


class Limiter:
    """One for all doors of a process. Remembers a company as long as that makes a difference."""

    def __init__(self, bounds: CompanyBounds, clock: Callable[[], float] = time.monotonic) -> None:
        self._bounds, self._clock = bounds, clock
        self._usages: OrderedDict[str, Usage] = OrderedDict()
        self._strangers = Usage()

    @classmethod
    def of(cls, settings: Settings) -> Limiter:
        return cls(
            CompanyBounds(
                at_once=settings.company_requests,
                a_second=settings.company_rate,
                bytes_a_minute=settings.company_bytes,
                prompts=settings.company_prompts,
            )
        )

    def enter(self, company: str | None, cost: RequestCost) -> None:
        """Whoever enters leaves. The admin has no limits: it is the operator. Raises `ApiError`."""
        if company is not None:
            now = self._clock()
            self._forget(now)
            self._usages[company] = _let_in(admit(self._usages.get(company, Usage()), cost, self._bounds, now))
            self._usages.move_to_end(company)

    def leave(self, company: str | None, cost: RequestCost, unsent: int) -> None:
        if company is not None:
            self._usages[company] = finished(self._usages[company], cost, unsent)

    def charge(self, company: str | None, more: int) -> None:
        """Of a request that is let in: so many more than one are asked for by it. Raises `ApiError`."""
        if company is not None:
            self._usages[company] = _let_in(charged(self._usages[company], more, self._bounds, self._clock()))

    def stranger(self) -> Busy | None:
        found = admit(self._strangers, RequestCost(), STRANGERS, self._clock())
        if isinstance(found, Busy):
            return found
        self._strangers = finished(found, RequestCost(), 0)
        return None

    def _forget(self, now: float) -> None:
        """The one that was let in longest ago, if it rests: each request brings at most one and takes away one."""
        oldest = next(iter(self._usages), None)
        if oldest is not None and forgettable(self._usages[oldest], self._bounds, now):
            del self._usages[oldest]


def _let_in(found: Usage | Busy) -> Usage:
    if isinstance(found, Busy):
        raise ApiError(429, found.reason, TOLD[found.reason], Retry_After=str(found.retry_after))
    return found


def cost_of(method: str, path: str, headers: Headers) -> RequestCost:
    """As the head says; a body of unknown length is taken for the longest."""
    most = FILE_BYTES if (method, path) == FILES else BODY_BYTES
    unknown = most if "transfer-encoding" in headers else 0
    announced = headers.get("content-length")
    size = unknown if announced is None else _announced(announced)
    if size > most:
        raise too_large(most)
    wish = method == "POST" and path in WISHES
    return RequestCost(size, prompt=(method, path) == ("POST", CHAT), requests=WISH if wish else 1)


def _announced(text: str) -> int:
    return int(text) if text.isascii() and text.isdigit() and len(text) < 20 else FILE_BYTES + 1


def too_large(most: int) -> ApiError:
    return ApiError(413, "too_large", f"The body of this request has at most {most} bytes: send several.")


async def body_of(receive: Receive) -> bytes:
    """The whole body. Raises `ApiError` for one that is too large or too slow, and `ClientLeft`."""
    parts = list[bytes]()
    await read_body(receive, parts.append, BODY_BYTES, BODY_SECONDS)
    return b"".join(parts)


async def read_body(receive: Receive, keep: Callable[[bytes], object], most: int, seconds: float) -> int:
    """How many bytes were kept."""
    size, more = 0, True
    try:
        async with asyncio.timeout(seconds):
            while more:
                message = await receive()
                if message["type"] == "http.disconnect":
                    raise ClientLeft
                part, more = message.get("body", b""), message.get("more_body", False)
                size += len(part)
                if size > most:
                    raise too_large(most)
                keep(part)
    except TimeoutError:
        raise ApiError(408, "too_slow", f"The body did not arrive within {seconds:.0f} seconds.") from None
    return size


def again(body: bytes, receive: Receive) -> Receive:
    """What the app receives: the body at once, then whatever the server has to say."""
    told = False

    async def received() -> Message:
        nonlocal told
        if told:
            return await receive()
        told = True
        return {"type": "http.request", "body": body, "more_body": False}

    return received
