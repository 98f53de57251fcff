"""One bounded HTTP exchange with a tool, over the address that was checked."""

import asyncio
import ssl
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, NamedTuple
from urllib.parse import parse_qsl, quote

import httpx

from streams.bridge.addresses import Address, allowed
from streams.errors import EndpointRefused, NameUnanswered

CONNECT_SECONDS = 3.0
TOTAL_SECONDS = 15.0
REPLY_BYTES = 64 * 1024
URL_CHARS, HOST_CHARS = 2_000, 253
METHODS = ("GET", "POST", "PUT", "PATCH", "DELETE")
# A repeat under the same key is what these ask for; 409 is how some say that the first try is still at work.
AGAIN = (408, 409, 425, 429)
TEXTUAL = ("application/json", "text/", "application/problem+json", "application/xml")

Find = Callable[[str, int], Awaitable[Sequence[Address]]]
"""A host and a port to its addresses: `streams.bridge.lookups`, for one company."""


class Pinned(NamedTuple):
    """A URL whose host is the checked address; the name goes into the Host header and the certificate check."""

    url: httpx.URL
    host: str
    server_name: str


class ToolReply(NamedTuple):
    ok: bool
    status: int | None
    body: str
    reason: str
    again: bool = False
    """The same call may go better later."""


def origin_of(endpoint: str) -> str:
    """Scheme, host and port: what a credential is bound to."""
    url = _parsed(endpoint)
    return f"{url.scheme}://{url.host}:{url.port or {'https': 443, 'http': 80}[url.scheme]}"


def _parsed(endpoint: str) -> httpx.URL:
    if len(endpoint) > URL_CHARS:
        raise EndpointRefused(_shown(endpoint), f"it has {len(endpoint)} characters, at most {URL_CHARS} are called")
    try:
        url = httpx.URL(endpoint)
        _ = url.host  # decoded here once, since that may fail
    except (httpx.InvalidURL, ValueError) as error:
        raise EndpointRefused(_shown(endpoint), "it is not a URL") from error
    if (
        url.scheme not in ("https", "http")
        or not 0 < len(url.raw_host) <= HOST_CHARS
        or not 0 < (url.port or 443) < 65536
    ):
        raise EndpointRefused(_shown(endpoint), "only https://host/... and http://host/... are called")
    if url.userinfo:
        raise EndpointRefused(_shown(endpoint), "credentials belong in the tool's auth, not in its URL")
    return url


def _shown(endpoint: str) -> str:
    """Without what may be a credential, and harmless wherever it is printed."""
    return ascii(endpoint.rpartition("@")[2].partition("?")[0][:200])


async def pin(endpoint: str, private: bool, find: Find) -> Pinned:
    """Resolves once and checks every answer: what is checked is what is connected to."""
    url = _parsed(endpoint)
    if url.scheme == "http" and not private:
        raise EndpointRefused(
            origin_of(endpoint),
            "plain http shows to others what is said; use https, or, for tools of this machine and its network, set "
            "RILLFOLD_ALLOW_PRIVATE_TOOLS=true where the API and the bridge are started",
        )
    try:
        addresses = await find(url.host, url.port or 0)
    except (UnicodeError, ValueError) as error:
        raise EndpointRefused(_shown(endpoint), "its host is not a name") from error
    for address in addresses:
        if url.scheme == "http" and address.is_global:
            raise EndpointRefused(origin_of(endpoint), "plain http is for private addresses alone")
        if not allowed(address, private):
            raise EndpointRefused(
                origin_of(endpoint),
                f"{address} is not a public address (RILLFOLD_ALLOW_PRIVATE_TOOLS where they start allows private)",
            )
    return Pinned(url.copy_with(host=str(addresses[0])), url.netloc.decode("ascii"), url.raw_host.decode("ascii"))


async def registrable(endpoint: str, private: bool, find: Find) -> None:
    """Raises `EndpointRefused` where a tool that is registered now could never be called.

    A name that has no address yet is taken: each call looks it up and checks it anew.
    """
    try:
        await pin(endpoint, private, find)
    except NameUnanswered:
        return


def request_of(method: str, pinned: Pinned, arguments: Mapping[str, Any], headers: Mapping[str, str]) -> httpx.Request:
    """GET and DELETE send the arguments in the query, everything else as a JSON body."""
    if method not in METHODS:
        raise EndpointRefused(pinned.host, f"its method {method[:20]!a} is none of {', '.join(METHODS)}")
    if not all(text.isascii() and text.isprintable() for pair in headers.items() for text in pair):
        raise EndpointRefused(pinned.host, "a header for it is not printable ASCII")
    whole = {**headers, "Host": pinned.host, "Accept": "application/json, text/*", "Accept-Encoding": "identity"}
    extensions = {
        "sni_hostname": pinned.server_name,
        "timeout": httpx.Timeout(TOTAL_SECONDS, connect=CONNECT_SECONDS).as_dict(),
    }
    if method in ("GET", "DELETE"):
        return httpx.Request(method, _with_arguments(pinned.url, arguments), headers=whole, extensions=extensions)
    return httpx.Request(method, pinned.url, headers=whole, json=dict(arguments), extensions=extensions)


def _with_arguments(url: httpx.URL, arguments: Mapping[str, Any]) -> httpx.URL:
    """The endpoint's own query string stays, and no argument stands in for a part of it."""
    own = {name for name, _ in parse_qsl(url.query.decode("ascii"), keep_blank_values=True)}
    if taken := sorted(own & set(arguments)):
        raise EndpointRefused(url.host, f"its own query string has {taken[0][:64]!a}, and so has the call")
    said = [f"{quote(name, safe='')}={quote(_plain(value), safe='')}" for name, value in arguments.items()]
    query = b"&".join([*([url.query] if url.query else []), *(part.encode() for part in said)])
    return url.copy_with(query=query or None)


def _plain(value: object) -> str:
    return value if isinstance(value, str) else httpx.Request("POST", "http://x", json=value).content.decode()


def client(trust: ssl.SSLContext | None = None) -> httpx.AsyncClient:
    """No proxy, no redirect, and no connection kept: one opened for a name is never used for another at its address.

    `trust` holds the authorities that certificates are checked against; None: those that httpx comes with.
    """
    # How many at once is the caller's business: a second line here would be everybody's.
    limits = httpx.Limits(max_connections=None, max_keepalive_connections=0)
    return httpx.AsyncClient(verify=trust or True, trust_env=False, follow_redirects=False, limits=limits)


async def exchange(http: httpx.AsyncClient, request: httpx.Request) -> ToolReply:
    """Never raises for what the other side does. Bounded in time and in bytes."""
    try:
        async with asyncio.timeout(TOTAL_SECONDS):
            response = await http.send(request, stream=True)
            try:
                return await _reply(response)
            finally:
                await response.aclose()
    except TimeoutError:
        return ToolReply(False, None, "", "timeout", again=True)
    except httpx.HTTPError as error:
        # The error's own text may repeat a header.
        return ToolReply(False, None, "", f"unreachable: {type(error).__name__}", again=True)


async def _reply(response: httpx.Response) -> ToolReply:
    status, kind = response.status_code, response.headers.get("content-type", "text/plain").lower()
    if response.is_redirect or 300 <= status < 400:
        return ToolReply(False, status, "", "redirect: register the final address")
    if response.headers.get("content-encoding", "identity") != "identity":
        return ToolReply(False, status, "", "encoded: asked for identity, so nothing is unpacked")
    if not kind.startswith(TEXTUAL):
        return ToolReply(False, status, "", f"content_type: {kind[:100]!a}")
    body = bytearray()
    async for part in response.aiter_raw():
        body += part
        if len(body) > REPLY_BYTES:
            return _too_large(status)
    # What is no UTF-8 grows when it is replaced.
    text = body.decode("utf-8", "replace")
    if response.is_success:
        return within(ToolReply(True, status, text, ""))
    return within(ToolReply(False, status, text, f"status_{status}", again=status >= 500 or status in AGAIN))


def within(reply: ToolReply) -> ToolReply:
    """The reply, unless its body is more than is taken."""
    if len(reply.body) * 3 > REPLY_BYTES and len(reply.body.encode()) > REPLY_BYTES:
        return _too_large(reply.status)
    return reply


def _too_large(status: int | None) -> ToolReply:
    return ToolReply(False, status, "", f"reply_too_large: more than {REPLY_BYTES} bytes")
