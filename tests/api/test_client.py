"""The client asks for what it was told to ask for, whatever the words are."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from urllib.parse import unquote

import pytest

from rillfold.client import Client

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
