"""JSON as the standard has it: UTF-8, finite numbers, whole characters. What is read here can be written again."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from json import JSONDecodeError
from typing import Any

import msgspec
from fastapi import Request, Response
from fastapi.routing import APIRoute


def parsed(body: bytes) -> Any:
    """Raises `JSONDecodeError`, whatever is wrong. Of a name that is given twice the last counts."""
    try:
        return msgspec.json.decode(body)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise JSONDecodeError(str(error), "", 0) from None


class StrictRequest(Request):
    async def json(self) -> Any:
        return parsed(await self.body())


class StrictRoute(APIRoute):
    """Python's own reader lets NaN and halves of characters in, which nothing behind it can write."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        handle = super().get_route_handler()

        async def strict(request: Request) -> Response:
            return await handle(StrictRequest(request.scope, request.receive))

        return strict
