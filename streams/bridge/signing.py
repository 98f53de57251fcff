"""Kinds of credentials that applications add: from a secret, a request and the time to the headers that carry it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import msgspec

from schemas.errors import Poison
from streams.bridge.credentials import TOKEN, check_header
from streams.bridge.secrets import SecretStr

if TYPE_CHECKING:
    import httpx

MOST_HEADERS, MOST_CHARS = 10, 8_000


class ToolRequest(msgspec.Struct, frozen=True):
    """What is about to be sent to a tool."""

    method: str
    url: str
    """With its query. GET and DELETE have the arguments there."""
    body: bytes
    idempotency_key: str


Headers = Mapping[str, str]
Sign = Callable[[str, ToolRequest, int], Headers]


@dataclass(frozen=True)
class AuthKind:
    """A pure function of the secret, the request and the clock, in microseconds since the Unix epoch."""

    name: str
    place: str
    """File and line."""
    sign: Sign


NO_KINDS: Mapping[str, AuthKind] = {}


def signed(kind: AuthKind, secret: SecretStr | None, request: httpx.Request, host: str, now: int) -> dict[str, str]:
    """The headers for one try. Raises `Poison` with the kind and the place, and no word that may hold the secret.

    `host`: the tool's own name, where the request goes to an address.
    """
    if secret is None:
        raise Poison(f"A tool with auth {kind.name!r} has a credential: register it again.")
    url, key = str(request.url.copy_with(host=host)), request.headers["Idempotency-Key"]
    try:
        given = kind.sign(secret.reveal(), ToolRequest(request.method, url, request.content, key), now)
        wrong = _wrong(given)
    except (Exception, SystemExit) as error:  # its words are its own, whatever class it takes: they may hold the secret
        raise Poison(f"auth {kind.name!r} ({kind.place}) raised {type(error).__name__}.") from None
    if wrong:
        wrong = "it returned its secret as a header's name." if secret.reveal() in wrong else wrong
        raise Poison(f"auth {kind.name!r} ({kind.place}): {wrong}")
    return dict(given)


def _wrong(given: Any) -> str:
    """What no request can carry of it, in our own words; empty: nothing."""
    if not isinstance(given, Mapping) or len(given) > MOST_HEADERS:
        return f"it returned {type(given).__name__}, and no mapping of up to {MOST_HEADERS} headers."
    for name, value in given.items():
        if type(name) is not str or not TOKEN.fullmatch(name):
            return "a header's name is 1 to 64 letters, digits or signs of a token; one that it returned is not."
        try:
            check_header(name)
        except Poison as error:
            return str(error)
        if type(value) is not str or not (value.isascii() and value.isprintable()) or len(value) > MOST_CHARS:
            return f"its header {name} is no printable ASCII of up to {MOST_CHARS} characters."
    return ""
