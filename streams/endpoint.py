"""Which addresses a tool may have, and one bounded HTTP exchange with it over the address that was checked."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network
from typing import Any, NamedTuple
from urllib.parse import quote

import httpx

from streams.errors import EndpointRefused

CONNECT_SECONDS = 3.0
TOTAL_SECONDS = 15.0
REPLY_BYTES = 64 * 1024
METHODS = ("GET", "POST", "PUT", "PATCH", "DELETE")
# A repeat under the same key is what these ask for; 409 is how some say that the first try is still at work.
AGAIN = (408, 409, 425, 429)
TEXTUAL = ("application/json", "text/", "application/problem+json", "application/xml")

Address = IPv4Address | IPv6Address
# What `ipaddress` calls global and yet is nobody's public server.
_SPECIAL = tuple(map(ip_network, ("192.0.0.0/24", "192.88.99.0/24", "64:ff9b:1::/48")))
_NAT64 = ip_network("64:ff9b::/96")


class Pinned(NamedTuple):
    """A URL whose host is the checked address; the name goes into the Host header and the certificate check."""

    url: httpx.URL
    host: str
    server_name: str


class Reply(NamedTuple):
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
    try:
        url = httpx.URL(endpoint)
    except httpx.InvalidURL as error:
        raise EndpointRefused(endpoint[:200], f"it is not a URL ({error})") from error
    if url.scheme not in ("https", "http") or not url.host or not 0 < (url.port or 443) < 65536:
        raise EndpointRefused(endpoint[:200], "only https://host/... and http://host/... are called")
    if url.userinfo:
        # Its text may be a credential: it is not repeated.
        raise EndpointRefused(f"{url.scheme}://{url.host}", "credentials belong in the tool's auth, not in its URL")
    return url


def allowed(address: Address, private: bool) -> bool:
    """Public addresses; with `private` also this machine and its networks. Never link-local, where clouds keep keys."""
    address = _unwrapped(address)
    if address.is_link_local or address.is_multicast or address.is_unspecified:
        return False
    if address.is_loopback or (address.is_private and not address.is_reserved):
        return private
    return address.is_global and not address.is_reserved and not any(address in network for network in _SPECIAL)


def _unwrapped(address: Address) -> Address:
    """The IPv4 address that an IPv6 one stands for."""
    if isinstance(address, IPv4Address):
        return address
    if address in _NAT64:
        return IPv4Address(int(address) & 0xFFFFFFFF)
    return address.ipv4_mapped or address.sixtofour or (address.teredo[1] if address.teredo else address)


async def pin(endpoint: str, private: bool) -> Pinned:
    """Resolves once and checks every answer: what is checked is what is connected to."""
    url = _parsed(endpoint)
    if url.scheme == "http" and not private:
        raise EndpointRefused(origin_of(endpoint), "plain http would show the credential; use https")
    try:
        found = await asyncio.get_running_loop().getaddrinfo(url.host, url.port or 0, type=1)
    except (OSError, UnicodeError):
        raise EndpointRefused(origin_of(endpoint), "its name does not resolve") from None
    addresses = [ip_address(str(entry[4][0]).partition("%")[0]) for entry in found]
    for address in addresses:
        if url.scheme == "http" and address.is_global:
            raise EndpointRefused(origin_of(endpoint), "plain http is for private addresses alone")
        if not allowed(address, private):
            raise EndpointRefused(
                origin_of(endpoint), f"{address} is not a public address (RILLFOLD_ALLOW_PRIVATE_TOOLS allows private)"
            )
    return Pinned(url.copy_with(host=str(addresses[0])), url.netloc.decode("ascii"), url.raw_host.decode("ascii"))


def request_of(method: str, pinned: Pinned, arguments: Mapping[str, Any], headers: Mapping[str, str]) -> httpx.Request:
    """GET and DELETE send the arguments in the query, everything else as a JSON body."""
    if method not in METHODS:
        raise EndpointRefused(str(pinned.url), f"its method {method[:20]!r} is none of {', '.join(METHODS)}")
    if not all(text.isascii() and text.isprintable() for pair in headers.items() for text in pair):
        raise EndpointRefused(str(pinned.url), "a header for it is not printable ASCII")
    whole = {**headers, "Host": pinned.host, "Accept": "application/json, text/*", "Accept-Encoding": "identity"}
    extensions = {
        "sni_hostname": pinned.server_name,
        "timeout": httpx.Timeout(TOTAL_SECONDS, connect=CONNECT_SECONDS).as_dict(),
    }
    if method in ("GET", "DELETE"):
        query = "&".join(f"{quote(name, safe='')}={quote(_plain(value), safe='')}" for name, value in arguments.items())
        url = pinned.url.copy_with(query=query.encode() or None)
        return httpx.Request(method, url, headers=whole, extensions=extensions)
    return httpx.Request(method, pinned.url, headers=whole, json=dict(arguments), extensions=extensions)


def _plain(value: object) -> str:
    return value if isinstance(value, str) else httpx.Request("POST", "http://x", json=value).content.decode()


def client() -> httpx.AsyncClient:
    """No proxy, no redirect, and no connection kept: one opened for a name is never used for another at its address."""
    return httpx.AsyncClient(
        trust_env=False, follow_redirects=False, limits=httpx.Limits(max_connections=64, max_keepalive_connections=0)
    )


async def exchange(http: httpx.AsyncClient, request: httpx.Request) -> Reply:
    """Never raises for what the other side does. Bounded in time and in bytes."""
    try:
        async with asyncio.timeout(TOTAL_SECONDS):
            response = await http.send(request, stream=True)
            try:
                return await _reply(response)
            finally:
                await response.aclose()
    except TimeoutError:
        return Reply(False, None, "", "timeout", again=True)
    except httpx.HTTPError as error:
        # The error's own text may repeat a header.
        return Reply(False, None, "", f"unreachable: {type(error).__name__}", again=True)


async def _reply(response: httpx.Response) -> Reply:
    status, kind = response.status_code, response.headers.get("content-type", "text/plain").lower()
    if response.is_redirect or 300 <= status < 400:
        return Reply(False, status, "", "redirect: register the final address")
    if response.headers.get("content-encoding", "identity") != "identity":
        return Reply(False, status, "", "encoded: asked for identity, so nothing is unpacked")
    if not kind.startswith(TEXTUAL):
        return Reply(False, status, "", f"content_type: {kind[:100]}")
    body = bytearray()
    async for part in response.aiter_raw():
        body += part
        if len(body) > REPLY_BYTES:
            return Reply(False, status, "", f"reply_too_large: more than {REPLY_BYTES} bytes")
    text = body.decode("utf-8", "replace")
    if response.is_success:
        return Reply(True, status, text, "")
    return Reply(False, status, text, f"status_{status}", again=status >= 500 or status in AGAIN)
