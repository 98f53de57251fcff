"""A kind of credential that an application adds: its headers go out with each try; what it does wrong ends a call."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Callable, Mapping
from typing import Any

import pytest

from schemas.company import ToolAuth
from schemas.errors import Poison
from streams.bridge.endpoint import ToolReply, origin_of
from streams.bridge.secrets import FileSecrets, SecretStr
from streams.bridge.signing import AuthKind, ToolRequest
from streams.bridge.tool_bridge import ToolBridge
from streams.bridge.tool_caller import Caller, key_of
from tests.bridge.test_tool_bridge import CANARY, NOW, call, drain, events, tool


def hashed(secret: str, request: ToolRequest, now: int) -> dict[str, str]:
    said = f"{request.method} {request.url} {now} {request.idempotency_key} ".encode() + request.body
    return {"X-Signature": hmac.new(secret.encode(), said, hashlib.sha256).hexdigest(), "X-Time": str(now)}


def kinds(sign: Any) -> Mapping[str, AuthKind]:
    return {"signed": AuthKind("signed", "shop.py:7", sign)}


def of_kind(url: str, secrets: FileSecrets, **changes: Any) -> Any:
    ref = secrets.put("acme", origin_of(url), SecretStr(CANARY))
    return tool(url, secrets, **({"auth": ToolAuth(kind="signed", secret_ref=ref)} | changes))


async def called(secrets: FileSecrets, given: Any, sign: Any, clock: Callable[[], int] = lambda: NOW) -> ToolReply:
    async with Caller(secrets, lambda *_: given, private=True, patience=1, kinds=kinds(sign), clock=clock) as caller:
        return await caller.call(call())


@pytest.mark.usefixtures("topics")
async def test_what_is_sent_is_what_was_signed(log, names, secrets, send, api) -> None:
    bridge = ToolBridge(log, names, secrets, lambda: NOW, private=True, patience=1, kinds=kinds(hashed))
    await send(of_kind(f"{api.base}/echo?shop=1", secrets), call())
    await drain(bridge, log, names)
    (request,) = api.requests
    body = b'{"order":"A1"}'
    asked = ToolRequest("POST", f"{api.base}/echo?shop=1", body, key_of("acme", "c1"))
    assert hashed(CANARY, asked, NOW)["X-Signature"] == request["headers"]["X-Signature"]
    (reply,) = await events(log, names, "tool-result")
    assert reply.ok and "[credential]" in reply.body and request["headers"]["X-Signature"] not in reply.body


async def test_each_try_is_signed_anew_at_its_own_time(secrets: FileSecrets, api, monkeypatch) -> None:
    monkeypatch.setattr("streams.bridge.tool_caller.FIRST_PAUSE_SECONDS", 0.001)
    times = iter(range(NOW, NOW + 100))
    reply = await called(secrets, of_kind(f"{api.base}/flaky", secrets), hashed, lambda: next(times))
    assert reply.ok
    assert [each["headers"]["X-Time"] for each in api.requests] == [str(NOW + n) for n in range(3)]
    assert len({each["headers"]["X-Signature"] for each in api.requests}) == 3


async def test_arguments_of_a_get_are_signed_in_the_url(secrets: FileSecrets, api) -> None:
    seen: list[ToolRequest] = []

    def sign(_: str, request: ToolRequest, __: int) -> dict[str, str]:
        seen.append(request)
        return {}

    assert (await called(secrets, of_kind(f"{api.base}/ok", secrets, method="GET"), sign)).ok
    assert [(each.method, each.url, each.body) for each in seen] == [("GET", f"{api.base}/ok?order=A1", b"")]


def raises(secret: str, *_: object) -> dict[str, str]:
    raise KeyError(secret)


def ends(*_: object) -> dict[str, str]:
    raise SystemExit(0)


def refuses(secret: str, *_: object) -> dict[str, str]:
    raise Poison(f"no key: {secret}")


BAD: dict[str, Any] = {
    "raised Poison": refuses,
    "returned its secret as": lambda secret, *_: {secret: "\n"},
    "raised KeyError": raises,
    "raised SystemExit": ends,
    "returned NoneType": lambda *_: None,
    "returned list": lambda secret, *_: [secret],
    "returned str": lambda secret, *_: secret,
    "The header Host says how": lambda *_: {"Host": "elsewhere"},
    "The header idempotency-key says how": lambda *_: {"idempotency-key": "1"},
    "The header Content-Length says": lambda *_: {"Content-Length": "1"},
    "one that it returned is not": lambda secret, *_: {f"{secret} :": "x"},
    "header X-A is no printable": lambda secret, *_: {"X-A": f"{secret}\r\nX: y"},
    "header X-B is no printable": lambda *_: {"X-B": b"bytes"},
    "header X-C is no printable": lambda *_: {"X-C": "x" * 9_000},
    "returned dict": lambda *_: {f"X-{n}": "x" for n in range(11)},
}


@pytest.mark.parametrize("told", BAD)
async def test_what_it_does_wrong_is_that_calls_named_end_without_the_secret(
    told: str, secrets: FileSecrets, api, caplog
) -> None:
    reply = await called(secrets, of_kind(f"{api.base}/ok", secrets), BAD[told])
    assert not reply.ok and not api.requests
    assert told in reply.reason and "'signed' (shop.py:7)" in reply.reason, reply.reason
    assert CANARY not in reply.reason + caplog.text


async def test_a_tool_without_its_secret_or_of_a_kind_that_is_not_here_is_not_called(secrets: FileSecrets, api) -> None:
    bare = of_kind(f"{api.base}/ok", secrets, auth=ToolAuth(kind="signed"))
    assert "register it again" in (await called(secrets, bare, hashed)).reason
    async with Caller(secrets, lambda *_: of_kind(f"{api.base}/ok", secrets), private=True, patience=0) as caller:
        assert "what the application of this bridge adds" in (await caller.call(call())).reason
    assert not api.requests
