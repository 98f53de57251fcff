"""Requests byte for byte: what no HTTP client would send."""

from __future__ import annotations

import asyncio
from urllib.parse import urlsplit


async def talk(url: str, *parts: bytes, seconds: float = 10.0, source: str = "127.0.0.1") -> bytes:
    """What the server says until it closes, or until `seconds` are over."""
    found = urlsplit(url)
    reader, writer = await asyncio.open_connection(found.hostname, found.port, local_addr=(source, 0))
    said = b""
    try:
        for part in parts:
            writer.write(part)
            await writer.drain()
        async with asyncio.timeout(seconds):
            while more := await reader.read(65536):
                said += more
    except (TimeoutError, ConnectionError):
        pass
    finally:
        writer.close()
    return said


def get(path: str, key: str | None = None, *headers: str, method: str = "GET", body: bytes = b"") -> bytes:
    lines = [f"{method} {path} HTTP/1.1", "Host: 127.0.0.1", "Connection: close", *headers]
    lines += [f"Authorization: Bearer {key}"] if key else []
    lines += [f"Content-Length: {len(body)}"] if body else []
    return "\r\n".join([*lines, "", ""]).encode("latin-1") + body


def status(answer: bytes) -> int:
    """0: nothing was said in time."""
    return int(answer.split(b" ", 2)[1]) if answer else 0
