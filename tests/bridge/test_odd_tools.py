"""Whatever the log says of a tool, and whatever the tool answers: one call ends, named, and the bridge goes on."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from schemas.company import ToolAuth, ToolRegistered
from schemas.errors import Poison
from streams.bridge import endpoint
from streams.bridge.credentials import authorization, check_header
from streams.bridge.endpoint import ToolReply
from streams.bridge.secrets import FileSecrets, SecretStr
from streams.bridge.tool_caller import Caller
from tests.bridge.test_tool_bridge import call

NESTED = '{"properties":{"a":' * 3000 + "{}" + "}}" * 3000


def registered(**changes: Any) -> ToolRegistered:
    fields: dict[str, Any] = {"id": "t1", "company": "acme", "time": 1, "correlation": "t1", "name": "refund"}
    fields |= {"description": "", "parameters": "{}", "endpoint": "http://127.0.0.1:9/", "auth": ToolAuth(kind="none")}
    return ToolRegistered(**(fields | changes))


async def called(secrets: FileSecrets, tool: ToolRegistered | None, **changes: Any) -> ToolReply:
    async with Caller(secrets, lambda *_: tool, private=True, patience=0) as caller:
        return await caller.call(call(**({"arguments": "{}"} | changes)))


@pytest.mark.parametrize(
    "changes",
    [
        {"endpoint": "http://a\0b/"},
        {"endpoint": "http://127.0.0.1/" + "x" * 300_000},
        {"endpoint": "http://xn--a/"},
        {"endpoint": "http://" + "a." * 500 + "b/"},
        {"endpoint": "http://[::1"},
        {"endpoint": "unix:///var/run/docker.sock"},
        {"endpoint": "\\\\server\\share"},
        {"endpoint": "http://ada:hunter2@127.0.0.1:99x/"},
        {"endpoint": ""},
        {"method": "CONNECT"},
        {"method": "GET\r\nX: y"},
        {"method": ""},
        {"auth": ToolAuth(kind="", secret_ref="sec_" + "0" * 32)},
        {"auth": ToolAuth(kind="header", header=None, secret_ref="../../key")},
        {"auth": ToolAuth(kind="bearer", secret_ref="sec_" + "0" * 5000)},
        {"auth": ToolAuth(kind="bearer", secret_ref="sec_\u0661" * 8)},
        {"auth": ToolAuth(kind="bearer", secret_ref="sec_" + "0" * 31 + "\n")},
        {"parameters": NESTED},
        {"parameters": "[" * 5000},
        {"parameters": "null"},
        {"name": "other"},
    ],
)  # fmt: skip
async def test_an_odd_tool_is_refused_by_name(secrets: FileSecrets, changes: dict[str, Any]) -> None:
    reply = await called(secrets, registered(**changes))
    assert not reply.ok
    assert reply.reason.startswith(("refused: ", "denied: ")), reply.reason
    assert "hunter2" not in reply.reason
    assert len(reply.reason) <= 1_000


ODD_TEXT = st.text(st.characters(codec="utf-8"), max_size=50)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.builds(
        registered,
        name=st.sampled_from(["refund", "x"]),
        endpoint=ODD_TEXT | ODD_TEXT.map(lambda text: f"http://{text}/") | ODD_TEXT.map("http://127.0.0.1:9/".__add__),
        method=ODD_TEXT | st.sampled_from(endpoint.METHODS),
        parameters=ODD_TEXT | st.just("{}"),
        auth=st.builds(ToolAuth, kind=ODD_TEXT, secret_ref=st.none() | ODD_TEXT, header=st.none() | ODD_TEXT),
    ),
    ODD_TEXT | st.just("{}"),
)
def test_a_call_always_ends_in_a_reply(secrets: FileSecrets, tool: ToolRegistered, arguments: str) -> None:
    async def ends() -> None:
        class FakeLookups:
            """No name leads anywhere."""

            async def find(self, *_: object) -> list[Any]:
                raise OSError

        caller = Caller(secrets, lambda *_: tool, private=True, patience=0, lookups=FakeLookups())  # type: ignore[arg-type]
        async with caller:
            assert not (await caller.call(call(arguments=arguments))).ok

    asyncio.run(ends())


async def test_a_fault_of_the_bridge_itself_is_one_calls_end(secrets: FileSecrets, caplog) -> None:
    def broken(*_: object) -> ToolRegistered:
        raise MemoryError("canary")

    async with Caller(secrets, broken, private=True, patience=0) as caller:
        reply = await caller.call(call())
    assert reply == ToolReply(False, None, "", "failed: MemoryError in the bridge")
    assert "canary" not in caplog.text


HEADERS = ["Host", "content-LENGTH", "Transfer-Encoding", "Connection", "Upgrade", "TE", "Trailer", "Expect",
           "Content-Type", "Accept-Encoding", "Idempotency-Key", "User-Agent", "Proxy-Authorization", "Keep-Alive",
           "X-HTTP-Method-Override", "X-Forwarded-For", "", "a b", "a:b", "a\r\nb", "ключ", "x" * 65]  # fmt: skip


@pytest.mark.parametrize("header", HEADERS)
def test_a_header_that_a_client_sets_is_no_credential(header: str) -> None:
    with pytest.raises(Poison):
        check_header(header)
    for kind in ("header", "api_key"):
        if header:
            with pytest.raises(Poison):
                authorization(ToolAuth(kind=kind, header=header), SecretStr("v"))


@pytest.mark.parametrize("header", ["X-API-Key", "Authorization", "Cookie", "X-Shop_Token", "PRIVATE-TOKEN"])
def test_a_header_that_is_a_credential(header: str) -> None:
    check_header(header)
    assert authorization(ToolAuth(kind="header", header=header), SecretStr("v")) == {header: "v"}


@pytest.mark.parametrize("text", ["a\nb", "a\r\nX: y", "ключ", "a\0"])
def test_a_secret_that_is_no_header_value_is_refused(text: str) -> None:
    with pytest.raises(Poison) as refused:
        authorization(ToolAuth(kind="bearer"), SecretStr(text))
    assert text not in str(refused.value)


@asynccontextmanager
async def raw(*parts: bytes, again: bool = False) -> AsyncIterator[str]:
    """A server that says exactly this, and with `again` the last of it without end."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await reader.readuntil(b"\r\n\r\n")
            for part in parts:
                writer.write(part)
                await writer.drain()
            while again:
                writer.write(parts[-1])
                await writer.drain()
                await asyncio.sleep(0.001)
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    try:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/"
    finally:
        server.close()


HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/plain; charset=no-such\r\n"


@pytest.mark.parametrize(
    ("parts", "again", "reason"),
    [
        ((HEAD + b"\r\n", b"."), True, "timeout"),
        ((b"HTTP/1.1 200 OK\r\n", b"X-A: " + b"b" * 60_000 + b"\r\n"), True, "unreachable"),
        ((b"HTTP/1.1 103 Early Hints\r\n\r\n",), True, "timeout"),
        ((b"HTTP/1.1 302 Found\r\nLocation: file:///etc/passwd\r\n\r\n",), False, "redirect"),
        ((HEAD + b"Content-Length: 10\r\n\r\nshort",), False, "unreachable"),
        ((HEAD + b"Content-Length: -1\r\n\r\n",), False, "unreachable"),
        ((b"\0\0\0\0",), False, "unreachable"),
        ((b"",), False, "unreachable"),
        ((b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n",), False, "unreachable"),
        ((b"HTTP/1.1 200 OK\r\nContent-Type: \xff\xfe\r\n\r\n",), False, "content_type"),
        ((HEAD + b"\r\n" + b"\xff" * 40_000,), False, "reply_too_large"),
        ((HEAD + b"Transfer-Encoding: gzip, chunked\r\n\r\n",), False, "unreachable"),
    ],
)
async def test_an_odd_reply_is_named(secrets, monkeypatch, parts, again, reason) -> None:
    monkeypatch.setattr(endpoint, "TOTAL_SECONDS", 0.6)
    begun = time.monotonic()
    async with raw(*parts, again=again) as url:
        reply = await called(secrets, registered(endpoint=url))
    assert not reply.ok
    assert reply.reason.startswith(reason), reply
    assert time.monotonic() - begun < 5


@pytest.mark.parametrize(
    ("parts", "body"),
    [
        ((HEAD + b"\r\n" + b"a\xffb",), "a\ufffdb"),
        ((HEAD + b"Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\nX-Trailer: y\r\n\r\n",), "abc"),
        ((b"HTTP/1.1 103 Early Hints\r\n\r\n" * 5 + HEAD + b"\r\nok",), "ok"),
    ],
)
async def test_an_unusual_reply_is_read(secrets, parts, body) -> None:
    async with raw(*parts) as url:
        reply = await called(secrets, registered(endpoint=url))
    assert (reply.ok, reply.body) == (True, body)


async def test_what_stands_in_for_a_credential_has_its_bound_too(secrets: FileSecrets) -> None:
    async with raw(HEAD + b"\r\n" + b"a" * 60_000) as url:
        ref = secrets.put("acme", endpoint.origin_of(url), SecretStr("a"))
        reply = await called(secrets, registered(endpoint=url, auth=ToolAuth(kind="bearer", secret_ref=ref)))
    assert reply.reason.startswith("reply_too_large")
    assert msgspec.json.encode(reply.body) == b'""'
