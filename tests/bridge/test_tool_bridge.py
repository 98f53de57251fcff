"""A proposed call leaves once, for the right place, with the right credential, and its answer comes back once."""

from __future__ import annotations

import asyncio
from typing import Any

import msgspec
import pytest

from schemas.codec.codec import decode
from schemas.company import ToolAuth, ToolRegistered, ToolRevoked
from schemas.envelope import Origin
from schemas.rejected import RecordRejected
from schemas.tools import ToolCallProposed, ToolReturned
from schemas.topics import TopicNames
from streams.bridge import endpoint, tool_bridge, tool_caller
from streams.bridge.endpoint import origin_of
from streams.bridge.secrets import FileSecrets, SecretStr
from streams.bridge.tool_bridge import ToolBridge
from streams.bridge.tool_caller import key_of
from streams.log.outgoing import to_outgoing
from streams.log.port import EventLog, Outgoing

NOW = 1_700_000_000_000_000
CANARY = "tok_canary_5f3a"
pytestmark = pytest.mark.usefixtures("topics")


@pytest.fixture(autouse=True)
def short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tool_caller, "FIRST_PAUSE_SECONDS", 0.001)


@pytest.fixture
def bridge(log: EventLog, names: TopicNames, secrets: FileSecrets) -> ToolBridge:
    return make_bridge(log, names, secrets)


def make_bridge(log: EventLog, names: TopicNames, secrets: FileSecrets, patience: float = 0.3) -> ToolBridge:
    return ToolBridge(log, names, secrets, lambda: NOW, private=True, patience=patience)


def tool(url: str, secrets: FileSecrets, **changes: Any) -> ToolRegistered:
    secret = secrets.put("acme", origin_of(url), SecretStr(CANARY))
    fields = {"id": "t1", "company": "acme", "time": NOW, "correlation": "t1", "name": "refund", "description": "d"}
    schema = '{"properties":{"order":{"type":"string"}},"required":["order"]}'
    auth = ToolAuth(kind="bearer", secret_ref=secret)
    return ToolRegistered(**(fields | {"parameters": schema, "endpoint": url, "auth": auth} | changes))


def call(n: int = 1, **changes: Any) -> ToolCallProposed:
    fields = {"id": f"c{n}", "company": "acme", "time": NOW, "correlation": "r1", "call": f"c{n}", "job": "j1"}
    return ToolCallProposed(**(fields | {"tool": "refund", "arguments": '{"order":"A1"}'} | changes))


async def events(log: EventLog, names: TopicNames, topic: str) -> list[Any]:
    wire, found = names.wire(topic), []
    for partition, start in (await log.starts(wire)).items():
        async for batch in log.read(wire, partition, start):
            found += [decode(r.value, Origin(r.topic, r.partition, r.offset), r.timestamp) for r in batch]
    return found


async def drain(bridge: ToolBridge, log: EventLog, names: TopicNames) -> None:
    """Until every call on the topic is committed."""
    wire, group, stop = names.wire("tool-call"), f"{names.prefix}{tool_bridge.GROUP}", asyncio.Event()
    running = asyncio.create_task(bridge.run(stop))
    while True:
        ends, committed = dict(await log.ends(wire)), dict(await log.committed(group, wire))
        if running.done() or ends == dict.fromkeys(ends, 0) | committed:
            break
        await asyncio.sleep(0.02)
    stop.set()
    await running


async def test_a_call_goes_out_and_its_answer_comes_back(log, names, secrets, bridge, send, api) -> None:
    await send(tool(f"{api.base}/ok", secrets), call())
    await drain(bridge, log, names)
    (request,) = api.requests
    assert (request["method"], request["arguments"]) == ("POST", {"order": "A1"})
    assert request["headers"]["Authorization"] == f"Bearer {CANARY}"
    assert request["headers"]["Idempotency-Key"] == key_of("acme", "c1")
    (answer,) = await events(log, names, "tool-result")
    assert isinstance(answer, ToolReturned)
    assert (answer.ok, answer.status, answer.body, answer.call) == (True, 200, '{"done": {"order": "A1"}}', "c1")
    assert (answer.causation, answer.correlation) == ("c1", "r1")


async def test_the_same_call_twice_is_one_effect(log, names, secrets, bridge, send, api) -> None:
    await send(tool(f"{api.base}/ok", secrets), call(), call())
    await drain(bridge, log, names)
    await send(call())
    await drain(bridge, log, names)
    await send(call())
    await drain(make_bridge(log, names, secrets), log, names)
    assert len(api.requests) == 1
    assert len(await events(log, names, "tool-result")) == 1


class Uncommitted(Exception):
    pass


class DiesBeforeCommit:
    """A fault: the process ends between the ack of its answers and its commit."""

    def __init__(self, opening: Any) -> None:
        self._opening = opening

    async def __aenter__(self) -> DiesBeforeCommit:
        self._inner = await self._opening.__aenter__()
        return self

    async def __aexit__(self, *given: Any) -> None:
        await self._opening.__aexit__(*given)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    async def commit(self, offsets: Any) -> None:
        if any(offsets.values()):
            raise Uncommitted


async def test_a_crash_before_the_commit_does_not_call_again(
    log, names, secrets, bridge, send, api, monkeypatch
) -> None:
    await send(tool(f"{api.base}/ok", secrets), call())
    subscribe = log.subscribe
    with monkeypatch.context() as fault, pytest.raises(Uncommitted):
        fault.setattr(log, "subscribe", lambda *given: DiesBeforeCommit(subscribe(*given)))
        await bridge.run(asyncio.Event())
    assert len(api.requests) == 1
    await drain(make_bridge(log, names, secrets), log, names)
    assert len(api.requests) == 1
    assert len(await events(log, names, "tool-result")) == 1


async def test_another_companys_call_with_the_same_id_is_its_own(log, names, secrets, bridge, send, api) -> None:
    await send(tool(f"{api.base}/ok", secrets), call(company="globex"), call())
    await drain(bridge, log, names)
    answers = {answer.company: answer for answer in await events(log, names, "tool-result")}
    assert answers["acme"].ok
    assert answers["globex"].reason.startswith("denied: unknown_tool")
    assert len(api.requests) == 1


@pytest.mark.parametrize(
    ("mode", "reason", "requests"),
    [
        ("broken", "status_500", None),
        ("missing", "status_404", 1),
        ("redirect", "redirect", 1),
        ("bomb", "encoded", 1),
        ("endless", "reply_too_large", 1),
        ("binary", "content_type", 1),
    ],
)
async def test_a_bad_reply_is_named_and_bounded(log, names, secrets, bridge, send, api, mode, reason, requests) -> None:
    await send(tool(f"{api.base}/{mode}", secrets), call())
    await drain(bridge, log, names)
    (answer,) = await events(log, names, "tool-result")
    assert not answer.ok
    assert answer.reason.startswith(reason)
    assert {request["path"] for request in api.requests} == {f"/{mode}"}
    assert len(api.requests) == requests if requests else len(api.requests) > 3
    assert {request["headers"]["Idempotency-Key"] for request in api.requests} == {key_of("acme", "c1")}


async def test_a_fault_that_passes_is_retried_under_the_same_key(log, names, secrets, bridge, send, api) -> None:
    await send(tool(f"{api.base}/flaky", secrets), call())
    await drain(bridge, log, names)
    (answer,) = await events(log, names, "tool-result")
    assert answer.ok
    assert len(api.requests) == 3
    assert list(api.effects) == [key_of("acme", "c1")]


async def test_a_tool_that_does_not_answer_in_time(log, names, secrets, bridge, send, api, monkeypatch) -> None:
    monkeypatch.setattr(endpoint, "TOTAL_SECONDS", 0.05)
    await send(tool(f"{api.base}/slow", secrets), call())
    await drain(bridge, log, names)
    (answer,) = await events(log, names, "tool-result")
    assert (answer.ok, answer.reason) == (False, "timeout")
    assert list(api.effects) == [key_of("acme", "c1")]


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"arguments": '{"order":1}'}, "denied: invalid_arguments"),
        ({"arguments": '{"order":"A1","url":"http://evil"}'}, "denied: invalid_arguments"),
        ({"arguments": "not json"}, "denied: malformed_call"),
        ({"tool": "wipe"}, "denied: unknown_tool"),
    ],
)
async def test_what_the_gate_denies_does_not_leave(log, names, secrets, bridge, send, api, changes, reason) -> None:
    await send(tool(f"{api.base}/ok", secrets), call(**changes))
    await drain(bridge, log, names)
    (answer,) = await events(log, names, "tool-result")
    assert not answer.ok
    assert answer.reason.startswith(reason)
    assert api.requests == []


@pytest.mark.parametrize(
    "changes",
    [
        {"parameters": "nonsense"},
        {"parameters": '{"$ref":"http://evil"}'},
        {"method": "TRACE"},
        {"endpoint": "http://169.254.169.254/"},
        {"auth": ToolAuth(kind="bearer", secret_ref="sec_00")},
        {"auth": ToolAuth(kind="magic", secret_ref="sec_00")},
    ],
)
async def test_a_tool_that_was_registered_past_the_api_cannot_harm(
    log, names, secrets, bridge, send, api, changes
) -> None:
    await send(tool(f"{api.base}/ok", secrets, **changes), call())
    await drain(bridge, log, names)
    (answer,) = await events(log, names, "tool-result")
    assert not answer.ok
    assert api.requests == []


async def test_a_credential_never_goes_to_another_origin(log, names, secrets, bridge, send, api) -> None:
    ref = secrets.put("acme", "https://crm.acme.example:443", SecretStr(CANARY))
    stolen = tool(f"{api.base}/ok", secrets, auth=ToolAuth(kind="bearer", secret_ref=ref))
    await send(stolen, call())
    await drain(bridge, log, names)
    (answer,) = await events(log, names, "tool-result")
    assert not answer.ok
    assert api.requests == []


async def test_loopback_is_refused_unless_it_is_allowed(log, names, secrets, send, api) -> None:
    await send(tool(f"{api.base}/ok", secrets), call())
    await drain(ToolBridge(log, names, secrets, lambda: NOW), log, names)
    assert api.requests == []


async def test_a_revoked_tool_is_not_called(log, names, secrets, bridge, send, api) -> None:
    gone = ToolRevoked(id="t2", company="acme", time=NOW, correlation="t2", name="refund")
    await send(tool(f"{api.base}/ok", secrets), gone, call())
    await drain(bridge, log, names)
    assert api.requests == []


@pytest.mark.parametrize(
    ("kind", "header", "value", "sent"),
    [
        ("bearer", None, "abc", ("Authorization", "Bearer abc")),
        ("basic", None, "ada:pw", ("Authorization", "Basic YWRhOnB3")),
        ("api_key", None, "abc", ("X-Api-Key", "abc")),
        ("api_key", "X-Token", "abc", ("X-Token", "abc")),
        ("header", "X-Shop", "abc", ("X-Shop", "abc")),
    ],
)
async def test_every_way_to_authenticate(log, names, secrets, bridge, send, api, kind, header, value, sent) -> None:
    ref = secrets.put("acme", origin_of(api.base), SecretStr(value))
    await send(tool(f"{api.base}/ok", secrets, auth=ToolAuth(kind=kind, secret_ref=ref, header=header)), call())
    await drain(bridge, log, names)
    headers = {name.lower(): text for name, text in api.requests[0]["headers"].items()}
    assert headers[sent[0].lower()] == sent[1]


async def test_the_credential_is_in_no_topic_even_when_the_tool_repeats_it(
    log, names, secrets, bridge, send, api
) -> None:
    basic = secrets.put("acme", origin_of(api.base), SecretStr(f"ada:{CANARY}"))
    await send(tool(f"{api.base}/echo", secrets), call(1))
    await drain(bridge, log, names)
    await send(tool(f"{api.base}/echo", secrets, auth=ToolAuth(kind="basic", secret_ref=basic)), call(2))
    await drain(bridge, log, names)
    everything = [e for t in ("company-data", "tool-call", "tool-result") for e in await events(log, names, t)]
    text = msgspec.json.encode(everything).decode()
    assert text.count("[credential]") == 2
    assert CANARY not in text
    assert "YWRhOnRva19jYW5hcnl" not in text


async def test_what_is_no_call_goes_to_the_dead_letters(log, names, secrets, bridge, send, api) -> None:
    wrong = to_outgoing(tool(f"{api.base}/ok", secrets), names)
    wire = names.wire("tool-call")
    await log.append([Outgoing(wire, b"acme/j1", b"\xff"), wrong._replace(topic=wire)])
    await send(tool(f"{api.base}/ok", secrets), call())
    await drain(bridge, log, names)
    dead = await events(log, names, "dead-letter")
    assert all(isinstance(letter, RecordRejected) for letter in dead)
    assert sorted(letter.reason for letter in dead) == ["unknown_framing", "wrong_topic"]
    assert len(api.requests) == 1
