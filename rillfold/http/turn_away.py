"""An answer before the body is read. Who is cut off while it sends never reads it, so what comes may run out."""

import asyncio
from typing import NamedTuple

from starlette.datastructures import Headers
from starlette.types import Receive, Scope, Send

from rillfold.http.errors import answer_of
from rillfold.http.wire import SETTLE


class Linger(NamedTuple):
    """How much is let run out, unread, after the answer."""

    bytes: int
    seconds: float


STRANGER = Linger(256 << 10, 1.0)
KNOWN = Linger(32 << 20, 10.0)


async def turn_away(error: Exception, linger: Linger, scope: Scope, receive: Receive, send: Send) -> None:
    answer = answer_of(error, scope["path"])
    if not _has_body(scope):
        return await answer(scope, receive, send)
    answer.headers["Connection"] = "close"
    await send({"type": "http.response.start", "status": answer.status_code, "headers": answer.raw_headers})
    await send({"type": "http.response.body", "body": answer.body, "more_body": True})
    # It is the client's turn now: where places are short, it gives way.
    scope.get("state", {}).get(SETTLE, _nobody)()
    await _run_out(linger, receive)
    return await send({"type": "http.response.body", "body": b"", "more_body": False})


def _nobody() -> None:
    """The server is none of ours."""


def _has_body(scope: Scope) -> bool:
    headers = Headers(scope=scope)
    return "transfer-encoding" in headers or headers.get("content-length", "0") != "0"


async def _run_out(linger: Linger, receive: Receive) -> None:
    seen, more = 0, True
    try:
        async with asyncio.timeout(linger.seconds):
            while more and seen < linger.bytes:
                message = await receive()
                seen += len(message.get("body", b""))
                more = message.get("more_body", False)
    except TimeoutError:
        return
