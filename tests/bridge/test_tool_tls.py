"""A certificate counts for the name in the endpoint, at the address that was checked. Real handshakes."""

from __future__ import annotations

import asyncio
import datetime as dt
import socket
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from schemas.company import ToolAuth, ToolRegistered
from streams.bridge.endpoint import ToolReply, origin_of
from streams.bridge.lookups import Lookups
from streams.bridge.secrets import FileSecrets, SecretStr
from streams.bridge.tool_caller import Caller
from tests.bridge.test_tool_bridge import CANARY, call

DAY = dt.timedelta(days=1)
NOW = dt.datetime.now(dt.UTC)
Key = ec.EllipticCurvePrivateKey


def name(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])


def certificate(subject: str, key: Key, issuer: str, signer: Key, until: dt.datetime, ca: bool) -> x509.Certificate:
    return (
        x509.CertificateBuilder()
        .subject_name(name(subject))
        .issuer_name(name(issuer))
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(NOW - 10 * DAY)
        .not_valid_after(until)
        .add_extension(x509.BasicConstraints(ca=ca, path_length=None), critical=True)
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(subject)]), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(signer.public_key()), critical=False)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .sign(signer, hashes.SHA256())
    )


class Authority:
    """Signs for the suite alone; trusted by an explicit context, nothing is switched off."""

    def __init__(self) -> None:
        self.key = ec.generate_private_key(ec.SECP256R1())
        self.certificate = certificate("suite authority", self.key, "suite authority", self.key, NOW + DAY, ca=True)

    def trust(self) -> ssl.SSLContext:
        pem = self.certificate.public_bytes(serialization.Encoding.PEM).decode()
        return ssl.create_default_context(cadata=pem)

    def server(self, folder: Path, kind: str) -> ssl.SSLContext:
        key = ec.generate_private_key(ec.SECP256R1())
        subject = "other.example" if kind == "wrong name" else "tool.example"
        until = NOW - DAY if kind == "expired" else NOW + DAY
        issuer, signer = (subject, key) if kind == "self-signed" else ("suite authority", self.key)
        made = certificate(subject, key, issuer, signer, until, ca=False)
        private = key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        (folder / "server.pem").write_bytes(private + made.public_bytes(serialization.Encoding.PEM))
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(folder / "server.pem")
        return context


Answer = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@asynccontextmanager
async def listening(context: ssl.SSLContext) -> AsyncIterator[tuple[int, list[bytes]]]:
    """Its port, and every request that came through a handshake."""
    seen: list[bytes] = []

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        seen.append(await reader.readuntil(b"\r\n\r\n"))
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n{}")
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0, ssl=context)
    try:
        yield server.sockets[0].getsockname()[1], seen
    finally:
        server.close()


def here(host: str, port: int, **_: Any) -> list[Any]:
    """tool.example lives on this machine."""
    assert host == "tool.example"
    return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", port))]


async def called(secrets: FileSecrets, port: int, trust: ssl.SSLContext | None) -> ToolReply:
    url = f"https://tool.example:{port}/x"
    tool = ToolRegistered(
        id="t1", company="acme", time=1, correlation="t1", name="refund", description="", parameters="{}", endpoint=url,
        auth=ToolAuth(kind="bearer", secret_ref=secrets.put("acme", origin_of(url), SecretStr(CANARY))),
    )  # fmt: skip
    caller = Caller(secrets, lambda *_: tool, private=True, patience=0, trust=trust, lookups=Lookups(here))
    async with caller:
        return await caller.call(call(arguments="{}"))


@pytest.mark.parametrize("kind", ["right", "wrong name", "expired", "self-signed", "unknown authority"])
async def test_a_certificate(secrets: FileSecrets, tmp_path: Path, kind: str) -> None:
    authority = Authority()
    trust = None if kind == "unknown authority" else authority.trust()
    async with listening(authority.server(tmp_path, kind)) as (port, seen):
        reply = await called(secrets, port, trust)
    if kind == "right":
        assert reply.ok
        assert f"Host: tool.example:{port}".encode() in seen[0]
        assert f"Authorization: Bearer {CANARY}".encode() in seen[0]
    else:
        assert (reply.ok, reply.reason) == (False, "unreachable: ConnectError")
        assert seen == [], "the credential never left"
