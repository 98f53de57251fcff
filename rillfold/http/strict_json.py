"""JSON as the standard has it: UTF-8, finite numbers, whole characters. What is read here can be written again."""

from collections.abc import Callable, Coroutine
from json import JSONDecodeError
from typing import Any

import msgspec
from fastapi import HTTPException, Request, Response
from fastapi.routing import APIRoute

VALUES = 200_000


class TooManyValues(HTTPException):
    """Everything behind this looks at each value: who looked at millions would have no time for anybody else."""

    def __init__(self) -> None:
        super().__init__(422, f"A body holds at most {VALUES} JSON values: send several.")


def parsed(body: bytes) -> Any:
    """Raises `JSONDecodeError`, or `TooManyValues`. Of a name that is given twice the last counts."""
    try:
        found = msgspec.json.decode(body)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise JSONDecodeError(str(error), "", 0) from None
    # There are no more values than these, and one; texts hold such letters too.
    if sum(map(body.count, (b",", b"[", b"{"))) >= VALUES:
        _check_number(found)
    return found


def _check_number(value: Any) -> None:
    number, unseen = 1, [value]
    while unseen:
        match unseen.pop():
            case dict() as inner:
                values = list(inner.values())
            case list() as values:
                pass
            case _:
                continue
        number += len(values)
        if number > VALUES:
            raise TooManyValues
        unseen += values


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
