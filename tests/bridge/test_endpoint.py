"""Where a tool may live, and what of its reply is believed."""

from __future__ import annotations

import asyncio
import socket
import threading
import time
from collections.abc import Sequence
from ipaddress import ip_address
from typing import Any

import httpx
import pytest

from streams.bridge import endpoint, lookups
from streams.bridge.addresses import Address, allowed
from streams.bridge.lookups import Lookups
from streams.errors import EndpointRefused, NameUnanswered

PUBLIC = ["93.184.216.34", "2606:2800:220:1:248:1893:25c8:1946", "::ffff:93.184.216.34", "64:ff9b::5db8:d822"]
PRIVATE = [
    "127.0.0.1",
    "10.1.2.3",
    "172.16.0.1",
    "192.168.1.1",
    "::1",
    "fc00::1",
    "::ffff:10.0.0.1",
    "::ffff:127.0.0.1",
]
NEVER = [
    "169.254.169.254", "fe80::1", "0.0.0.0", "::", "224.0.0.1", "ff02::1", "240.0.0.1", "255.255.255.255",
    "100.64.0.1", "192.0.0.8", "192.88.99.1", "64:ff9b::a9fe:a9fe", "::ffff:169.254.169.254", "2002:a9fe:a9fe::1",
    "64:ff9b:1::1",
    # Where clouds answer a machine: keys, names, time.
    "168.63.129.16", "100.100.100.200", "169.254.170.2", "169.254.170.23", "192.0.0.192", "fd00:ec2::254",
    "fd00:ec2::23", "fd20:ce::254", "fd00:42::42", "fd00:c1::a9fe:a9fe", "fe80::a9fe:a9fe", "::ffff:168.63.129.16",
    # One address in the clothes of another.
    "fec0::1", "feff::1", "::169.254.169.254", "::127.0.0.1", "::93.184.216.34", "2002:7f00:1::1", "2002:5db8:d822::1",
    "2001:0:a9fe:a9fe::1", "2001::ffff:5601:5601", "64:ff9b::7f00:1", "64:ff9b::a00:1", "64:ff9b::a83f:8110",
    "0.1.2.3", "3fff::1", "5f00::1",
]  # fmt: skip


async def find(host: str, port: int) -> Sequence[Address]:
    return await Lookups().find("acme", host, port)


def test_addresses() -> None:
    for text in PUBLIC:
        assert allowed(ip_address(text), private=False), text
    for text in PRIVATE:
        assert not allowed(ip_address(text), private=False), text
        assert allowed(ip_address(text), private=True), text
    for text in NEVER:
        assert not allowed(ip_address(text), private=False), text
        assert not allowed(ip_address(text), private=True), text


@pytest.mark.parametrize(
    "url",
    [
        "https://127.0.0.1/", "https://localhost/", "https://[::1]/", "https://0x7f.1/", "https://2130706433/",
        "https://127.1/", "https://[::ffff:127.0.0.1]/", "https://169.254.169.254/latest/meta-data", "http://1.1.1.1/",
        "https://user:password@1.1.1.1/", "ftp://1.1.1.1/", "file:///etc/passwd", "https://", "//1.1.1.1/", "nonsense",
        "https://1.1.1.1:99999/", "https://\x00/", "https://a..b/", "gopher://1.1.1.1/", "https://xn--a/", "https://\ud800/",
        "https://" + "a" * 100 + "/", "https://1.1.1.1/" + "x" * 300_000, "https://user:password@1.1.1.1:99x/",
        "https://[fe80::1%25eth0]/",
    ],
)  # fmt: skip
async def test_addresses_that_are_refused(url: str) -> None:
    with pytest.raises(EndpointRefused) as refused:
        await endpoint.pin(url, False, find)
    assert "password" not in str(refused.value)


async def test_plain_http_never_leaves_the_private_network() -> None:
    with pytest.raises(EndpointRefused, match="plain http"):
        await endpoint.pin("http://1.1.1.1/", True, find)


async def test_the_connection_goes_to_the_address_that_was_checked() -> None:
    pinned = await endpoint.pin("http://localhost:8080/a?b=c", True, find)
    assert ip_address(pinned.url.host).is_loopback
    request = endpoint.request_of("POST", pinned, {"x": 1}, {})
    assert request.headers["host"] == "localhost:8080"
    assert request.extensions["sni_hostname"] == "localhost"


def pinned_at(url: str) -> endpoint.Pinned:
    return endpoint.Pinned(httpx.URL(url), "api.example", "api.example")


@pytest.mark.parametrize("method", ["GET", "DELETE"])
def test_the_endpoints_own_query_stays(method: str) -> None:
    request = endpoint.request_of(method, pinned_at("http://127.0.0.1/orders?shop=7&key=%20a"), {"id": "A1"}, {})
    assert request.url.query == b"shop=7&key=%20a&id=A1"
    assert endpoint.request_of(method, pinned_at("http://127.0.0.1/?a=1"), {}, {}).url.query == b"a=1"
    assert endpoint.request_of("POST", pinned_at("http://127.0.0.1/?a=1"), {"b": 2}, {}).url.query == b"a=1"
    for name in ("shop", "key"):
        with pytest.raises(EndpointRefused, match=name):
            endpoint.request_of(method, pinned_at("http://127.0.0.1/?shop=7&%6bey=1"), {name: "8"}, {})


def test_arguments_stay_in_their_slot() -> None:
    pinned = endpoint.Pinned(httpx.URL("http://127.0.0.1/orders"), "api.example", "api.example")
    request = endpoint.request_of("GET", pinned, {"id": "../admin?x=1&y=2#z", "n": 3, "deep": {"a": [1]}}, {})
    assert request.url.path == "/orders"
    assert dict(request.url.params) == {"id": "../admin?x=1&y=2#z", "n": "3", "deep": '{"a":[1]}'}


@pytest.mark.parametrize(("method", "header"), [("TRACE", "x"), ("POST", "a\r\nX-Evil: 1"), ("POST", "ключ")])
def test_odd_methods_and_headers_are_refused(method: str, header: str) -> None:
    pinned = endpoint.Pinned(httpx.URL("http://127.0.0.1/"), "api.example", "api.example")
    with pytest.raises(EndpointRefused):
        endpoint.request_of(method, pinned, {}, {"X-API-Key": header})


async def test_a_name_without_an_address_may_have_one_later() -> None:
    with pytest.raises(NameUnanswered, match="no-such-host"):
        await endpoint.pin("https://no-such-host.invalid/", False, find)
    await endpoint.registrable("https://no-such-host.invalid/", False, find)


@pytest.mark.parametrize("url", ["https://127.0.0.1/", "https://localhost/", "http://1.1.1.1/", "https://[fec0::1]/"])
async def test_a_private_endpoint_is_refused_when_it_is_registered(url: str) -> None:
    with pytest.raises(EndpointRefused):
        await endpoint.registrable(url, False, find)


class FakeResolver:
    """Hangs for names that begin with `slow`, until it is let go."""

    def __init__(self) -> None:
        self.go = threading.Event()
        self.asked: list[str] = []

    def __call__(self, host: str, port: int, **_: Any) -> list[Any]:
        self.asked.append(host)
        if host.startswith("slow"):
            self.go.wait(20)
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("93.184.216.34", port))]


async def test_a_companys_slow_names_hold_up_itself_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lookups, "SECONDS", 0.5)
    resolver = FakeResolver()
    names = Lookups(resolver)
    try:
        slow = [asyncio.create_task(names.find("acme", f"slow{n}.example", 443)) for n in range(200)]
        await asyncio.sleep(0.1)
        begun = time.monotonic()
        assert await names.find("globex", "quick.example", 443) == [ip_address("93.184.216.34")]
        assert time.monotonic() - begun < 0.4
        ended = await asyncio.gather(*slow, return_exceptions=True)
        assert {type(error) for error in ended} == {NameUnanswered}
        assert len(resolver.asked) == lookups.OF_ONE + 1, "what cannot be stopped is bounded"
    finally:
        resolver.go.set()
    assert await names.find("acme", "ok.example", 443) == [ip_address("93.184.216.34")]


async def test_whoever_stops_waiting_for_a_thread_keeps_no_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    """The bridge lets go of calls that belong to another member; all threads hang at that time."""
    monkeypatch.setattr(lookups, "OF_ALL", 2)
    monkeypatch.setattr(lookups, "SECONDS", 0.5)
    resolver = FakeResolver()
    names = Lookups(resolver)
    try:
        slow = [asyncio.create_task(names.find(f"c{n}", f"slow{n}.example", 443)) for n in range(2)]
        await asyncio.sleep(0.05)
        mine = [asyncio.create_task(names.find("acme", f"ok{n}.example", 443)) for n in range(lookups.OF_ONE)]
        await asyncio.sleep(0.05)
        for task in mine:
            task.cancel()
        await asyncio.gather(*mine, *slow, return_exceptions=True)
    finally:
        resolver.go.set()
    assert await names.find("acme", "ok.example", 443) == [ip_address("93.184.216.34")]
