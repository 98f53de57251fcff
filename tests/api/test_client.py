"""The client asks for what it was told to ask for, whatever the words are."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from urllib.parse import unquote

import pytest

from rillfold.client import ApiAway, Client

ODD = ["..", ".", "../../keys", "a/../b", "%2e%2e", "a?b=c", "a#b", "a b", "\u00e4", "a.b", "//"]
ANSWER = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 2\r\nConnection: close\r\n\r\n{}"


@pytest.fixture
async def asked() -> AsyncIterator[list[str]]:
    """Paths as they stood on the wire; the last is the server's address."""
    paths: list[str] = []

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        paths.append(head.split(b" ")[1].decode())
        writer.write(ANSWER)
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    async with server:
        paths.append(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}")
        yield paths


@pytest.mark.parametrize("word", ODD)
async def test_a_word_never_becomes_another_path(asked: list[str], word: str) -> None:
    async with Client(asked.pop(), "rk_x.y") as client:
        await client.job("acme", word)
        await client.row("memories", f"acme/{word}")
        await client.rows(word)
        await client.produce(word, [])
    before = ("/company-automation/jobs/", "/projections/memories/acme/", "/projections/", "/topics/")
    for path, start in zip(asked, before, strict=True):
        found = path.split("?")[0]
        assert found.startswith(start), path
        assert unquote(found.removeprefix(start)) == word
        assert ".." not in found


@pytest.mark.parametrize(
    ("scheme", "said", "told"),
    [
        ("https", b"HTTP/1.1 400 Bad Request\r\n\r\n", "WRONG_VERSION_NUMBER"),
        ("https", b"", "it closed the connection"),
        ("http", b"", "Server disconnected"),
        ("http", b"\x00\x00\x00\x04\x00\x00\x00\x00\r\n\r\n", "illegal"),
    ],
)
async def test_where_something_else_answers_nobody_is_told_to_start_an_api(scheme: str, said: bytes, told: str) -> None:
    """As a broker does to HTTP, and a port without TLS to a client that begins with it."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(9)
        writer.write(said)
        writer.close()

    async with await asyncio.start_server(answer, "127.0.0.1", 0) as server:
        url = f"{scheme}://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        async with Client(url, "rk_x.y") as client:
            with pytest.raises(ApiAway, match=rf"Something answers at .*{told}.*the scheme .* and the port") as away:
                await client.rows("company_tools")
    assert "Start it" not in str(away.value)
