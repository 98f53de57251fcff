"""Where a tool may live, and what of its reply is believed."""

from __future__ import annotations

from ipaddress import ip_address

import pytest

from streams import endpoint
from streams.errors import EndpointRefused

PUBLIC = ["93.184.216.34", "2606:2800:220:1:248:1893:25c8:1946", "::ffff:93.184.216.34"]
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
]  # fmt: skip


def test_addresses() -> None:
    for text in PUBLIC:
        assert endpoint.allowed(ip_address(text), private=False), text
    for text in PRIVATE:
        assert not endpoint.allowed(ip_address(text), private=False), text
        assert endpoint.allowed(ip_address(text), private=True), text
    for text in NEVER:
        assert not endpoint.allowed(ip_address(text), private=False), text
        assert not endpoint.allowed(ip_address(text), private=True), text


@pytest.mark.parametrize(
    "url",
    [
        "https://127.0.0.1/", "https://localhost/", "https://[::1]/", "https://0x7f.1/", "https://2130706433/",
        "https://127.1/", "https://[::ffff:127.0.0.1]/", "https://169.254.169.254/latest/meta-data", "http://1.1.1.1/",
        "https://user:password@1.1.1.1/", "ftp://1.1.1.1/", "file:///etc/passwd", "https://", "//1.1.1.1/", "nonsense",
        "https://no-such-host.invalid/", "https://1.1.1.1:99999/", "https://\x00/", "https://a..b/", "gopher://1.1.1.1/",
    ],
)  # fmt: skip
async def test_addresses_that_are_refused(url: str) -> None:
    with pytest.raises(EndpointRefused) as refused:
        await endpoint.pin(url, private=False)
    assert "password" not in str(refused.value)


async def test_plain_http_never_leaves_the_private_network() -> None:
    with pytest.raises(EndpointRefused, match="plain http"):
        await endpoint.pin("http://1.1.1.1/", private=True)


async def test_the_connection_goes_to_the_address_that_was_checked() -> None:
    pinned = await endpoint.pin("http://localhost:8080/a?b=c", private=True)
    assert ip_address(pinned.url.host).is_loopback
    request = endpoint.request_of("POST", pinned, {"x": 1}, {})
    assert request.headers["host"] == "localhost:8080"
    assert request.extensions["sni_hostname"] == "localhost"


def test_arguments_stay_in_their_slot() -> None:
    pinned = endpoint.Pinned(endpoint.httpx.URL("http://127.0.0.1/orders"), "api.example", "api.example")
    request = endpoint.request_of("GET", pinned, {"id": "../admin?x=1&y=2#z", "n": 3, "deep": {"a": [1]}}, {})
    assert request.url.path == "/orders"
    assert dict(request.url.params) == {"id": "../admin?x=1&y=2#z", "n": "3", "deep": '{"a":[1]}'}


@pytest.mark.parametrize(("method", "header"), [("TRACE", "x"), ("POST", "a\r\nX-Evil: 1"), ("POST", "ключ")])
def test_odd_methods_and_headers_are_refused(method: str, header: str) -> None:
    pinned = endpoint.Pinned(endpoint.httpx.URL("http://127.0.0.1/"), "api.example", "api.example")
    with pytest.raises(EndpointRefused):
        endpoint.request_of(method, pinned, {}, {"X-API-Key": header})
