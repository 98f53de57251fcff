"""The operator's token: what the workers' own ports take. The API has it; companies never do."""

import hmac
import secrets
from pathlib import Path
from typing import NamedTuple

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from rillfold.http.errors import ApiError
from rillfold.http.hosts import is_known, known_hosts
from rillfold.http.keys import bearer, hash_of
from rillfold.http.limits import ClientLeft, again, body_of, cost_of
from rillfold.http.turn_away import KNOWN, STRANGER, turn_away
from rillfold.settings import Settings
from rillfold.written import written_once
from schemas.errors import Stop

COMPANY_HEADER = "X-Rillfold-Company"


class Operator(NamedTuple):
    token: str
    hosts: frozenset[str]

    def refuses(self, host: str | None, authorization: str | None) -> ApiError | None:
        if not is_known(host, self.hosts):
            return ApiError(421, "unknown_host", "This is no name of this server's: add it to RILLFOLD_HOSTS.")
        given = bearer(authorization)
        # Hashes are compared: they have one length and one alphabet, whatever was given.
        if given is not None and hmac.compare_digest(hash_of(given), hash_of(self.token)):
            return None
        told = (
            "The operator's token is needed: it lies in operator/token in the data folder, or in RILLFOLD_SERVE_TOKEN."
        )
        return ApiError(401, "unauthorized", told, WWW_Authenticate="Bearer")


def token_file(data_dir: Path) -> Path:
    return data_dir / "operator" / "token"


def operator_of(settings: Settings) -> Operator:
    """The token is made by whoever needs it first."""
    file = token_file(settings.data_dir)
    token = settings.serve_token or written_once(file, secrets.token_urlsafe(32))
    if not token:
        raise Stop(f"{file} is empty: delete it, and start the workers and the API again.")
    hosts = known_hosts(settings.serve_host, settings.worker_host, *settings.hosts.split(","))
    return Operator(token, hosts)


class OperatorOnly:
    """Before an app: the host and the token, then the body. `/health` says that it lives, to anybody."""

    def __init__(self, app: ASGIApp, operator: Operator) -> None:
        self._app, self._operator = app, operator

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["path"] == "/health":
            return await self._app(scope, receive, send)
        headers = Headers(scope=scope)
        refused = self._operator.refuses(headers.get("host"), headers.get("authorization"))
        try:
            if refused is not None:
                raise refused
            cost_of(scope["method"], scope["path"], headers)
            body = await body_of(receive)
        except ClientLeft:
            return None
        except ApiError as error:
            return await turn_away(error, STRANGER if refused else KNOWN, scope, receive, send)
        return await self._app(scope, again(body, receive), send)
