"""The entry of the API: whose key, is there room for it, the body. In this order, and nothing else is done before."""

from contextlib import ExitStack
from tempfile import TemporaryFile

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from processors.limits import Busy, RequestCost
from rillfold.http.errors import ApiError
from rillfold.http.keys import ApiKeys, Principal, bearer
from rillfold.http.limits import FILES, ClientLeft, Limiter, again, body_of, cost_of
from rillfold.http.spooled import from_file, spool
from rillfold.http.turn_away import KNOWN, STRANGER, turn_away
from schemas.errors import RillfoldError

OPEN = frozenset({"/health", "/ready", "/docs", "/redoc", "/openapi.json"})


class Entry:
    """Says no before the body is read, and lets at most one body of the allowed size into memory for each request; a
    file's body goes to the disk."""

    def __init__(self, app: ASGIApp, keys: ApiKeys, limiter: Limiter) -> None:
        self._app, self._keys, self._limiter = app, keys, limiter

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["path"] in OPEN:
            return await self._app(scope, receive, send)
        headers = Headers(scope=scope)
        try:
            asker = self._asker(key_of(headers))
        except (ApiError, RillfoldError, OSError) as error:
            return await turn_away(error, STRANGER, scope, receive, send)
        try:
            cost = self._let_in(asker, scope, headers)
        except ApiError as error:
            return await turn_away(error, KNOWN, scope, receive, send)
        scope.setdefault("state", {})["asker"] = asker
        return await self._pass_on(asker, cost, scope, receive, send)

    def _let_in(self, asker: Principal, scope: Scope, headers: Headers) -> RequestCost:
        _readable(scope)
        cost = cost_of(scope["method"], scope["path"], headers)
        self._limiter.enter(asker.company, cost)
        return cost

    async def _pass_on(self, asker: Principal, cost: RequestCost, scope: Scope, receive: Receive, send: Send) -> None:
        unsent = cost.bytes
        try:
            with ExitStack() as kept:
                if (scope["method"], scope["path"]) == FILES:
                    file = kept.enter_context(TemporaryFile())
                    size, handed_on = await spool(receive, file), from_file(file, receive)
                else:
                    body = await body_of(receive)
                    size, handed_on = len(body), again(body, receive)
                unsent = max(0, cost.bytes - size)
                await self._app(scope, handed_on, send)
        except ClientLeft:
            return
        except ApiError as error:
            await turn_away(error, KNOWN, scope, receive, send)
        finally:
            self._limiter.leave(asker.company, cost, unsent)

    def _asker(self, key: str | None) -> Principal:
        known = self._keys.who(key) if key else None
        if known is not None:
            return known
        busy = self._limiter.stranger()
        if isinstance(busy, Busy):
            told = "Too many requests come with keys that are not known here."
            raise ApiError(429, "too_often", told, Retry_After=str(busy.retry_after))
        raise unauthorized(key)


def key_of(headers: Headers) -> str | None:
    borne = bearer(headers.get("authorization"))
    return headers.get("x-api-key") if borne is None else borne


def unauthorized(key: str | None) -> ApiError:
    wrong = "This key is not known here." if key else "An API key is needed: Authorization: Bearer rk_..."
    return ApiError(401, "unauthorized", wrong, WWW_Authenticate="Bearer")


def _readable(scope: Scope) -> None:
    """No name here holds a control character, and no database takes a NUL."""
    if not scope["path"].isprintable() or b"%00" in scope["query_string"]:
        raise ApiError(422, "bad_characters", "The path or the query holds characters that no name here has.")
