"""Tools, training and jobs by HTTP become the right events, of the right company."""

from __future__ import annotations

import asyncio
import logging
import threading
from dataclasses import replace
from typing import Any

import pytest

from processors import gate
from processors.gate import offers
from rillfold.api import automation_jobs
from rillfold.app.installed import OURS
from schemas.company import AgentOutputIngested, ConversationIngested, TextIngested, ToolRegistered
from schemas.jobs import JobRequested
from schemas.training import TrainingRequested
from streams.bridge.secrets import FileSecrets
from streams.bridge.signing import AuthKind
from streams.bridge.tools import Tools

CANARY = "tok_canary_77"
LOOKUP = {
    "name": "crm_lookup",
    "endpoint": "https://crm.acme.example/api",
    "method": "POST",
    "auth": {"type": "bearer", "token": CANARY},
}


async def test_the_credential_goes_into_the_store_and_its_reference_into_the_event(api, tmp_path, caplog) -> None:
    caplog.set_level(logging.DEBUG)
    answer = await api.ask("POST", "/company-automation/register-tools", api.acme, json={"tools": [LOOKUP]})
    assert answer.status_code == 201
    (tool,) = await api.events("company-data")
    assert isinstance(tool, ToolRegistered)
    assert (tool.company, tool.name, tool.auth.kind, tool.parameters) == ("acme", "crm_lookup", "bearer", "{}")
    opened = FileSecrets(tmp_path / "secrets").get("acme", "https://crm.acme.example:443", tool.auth.secret_ref)
    assert opened.reveal() == CANARY
    placed = answer.json()["tools"]["crm_lookup"]
    assert (placed["id"], placed["topic"]) == (tool.id, "company-data")
    written = b"".join(file.read_bytes() for file in tmp_path.rglob("*") if file.is_file())
    assert CANARY not in f"{tool} {answer.text} {caplog.text} {written!r}"


@pytest.mark.parametrize(
    "changes",
    [
        {"endpoint": "ftp://crm.acme.example"},
        {"endpoint": f"https://ada:{CANARY}@crm.acme.example"},
        {"auth": {"type": "bearer"}},
        {"auth": {"type": "bearer", "token": f"{CANARY}\n"}},
        {"auth": {"type": "basic", "username": "ada"}},
        {"auth": {"type": "header", "token": CANARY}},
        {"auth": {"type": "magic", "token": CANARY}},
        {"auth": {"type": "bearer", "token": CANARY, "extra": 1}},
        {"auth": {"type": "header", "token": CANARY, "header": "Content-Length"}},
        {"auth": {"type": "api_key", "token": CANARY, "header": "Host"}},
        {"endpoint": "https://127.0.0.1/"},
        {"endpoint": "https://localhost/"},
        {"endpoint": "https://169.254.169.254/latest"},
        {"endpoint": "https://[fec0::1]/"},
        {"endpoint": "https://xn--a/"},
        {"endpoint": "http://crm.acme.example/"},
        {"method": "TRACE"},
        {"name": "a/b"},
        {"parameters": {"$ref": "https://evil.example"}},
        {"parameters": {"type": "strange"}},
        {"parameters": {"type": "string"}},
        {"parameters": {"$id": False}},
        {"parameters": {"properties": {"a": {"$id": ["b"]}}}},
        {"parameters": {"$anchor": {}}},
        {"parameters": {"$defs": {"d": {"$dynamicAnchor": 7}}, "$ref": "#/$defs/d"}},
    ],
)
async def test_a_tool_that_could_not_be_called_is_refused_at_once(api, tmp_path, changes: dict[str, Any]) -> None:
    given = {"tools": [LOOKUP, LOOKUP | {"name": "second"} | changes]}
    answer = await api.ask("POST", "/company-automation/register-tools", api.acme, json=given)
    assert answer.status_code == 422
    assert set(answer.json()) == {"error"}
    assert CANARY not in answer.text
    assert await api.events("company-data") == []
    assert not (tmp_path / "secrets").exists()


async def test_a_kind_of_auth_that_an_application_adds(serve, empty_log, tmp_path) -> None:
    there = replace(OURS, auths={"signed": AuthKind("signed", "shop.py:7", lambda *_: {})})
    async with serve(tmp_path, empty_log, installed=there) as api:
        ask = "POST", "/company-automation/register-tools", api.acme
        for type_, status in (("signed", 201), ("unsigned", 422)):
            given = LOOKUP | {"auth": {"type": type_, "token": CANARY}}
            answer = await api.ask(*ask, json={"tools": [given]})
            assert answer.status_code == status and CANARY not in answer.text
        assert "take none, bearer, basic, api_key, header, signed" in answer.text
        assert (await api.ask(*ask, json={"tools": [LOOKUP | {"auth": {"type": "signed"}}]})).status_code == 422
        (tool,) = await api.events("company-data")
        assert tool.auth.kind == "signed" and tool.auth.secret_ref


async def test_more_tools_than_a_job_can_carry_are_refused(api) -> None:
    def many(first: int, count: int) -> dict[str, Any]:
        large = LOOKUP | {"description": "x" * 2_000, "auth": {"type": "none"}}
        return {"tools": [large | {"name": f"t{n}"} for n in range(first, first + count)]}

    ask = "POST", "/company-automation/register-tools", api.acme
    assert (await api.ask(*ask, json=many(0, 90))).status_code == 201
    assert (await api.ask(*ask, json=many(0, 90))).status_code == 201, "they replace themselves"
    refused = await api.ask(*ask, json=many(90, 90))
    assert refused.status_code == 422
    assert "180 tools" in refused.text
    assert (await api.ask(*ask, json=many(90, 10))).status_code == 201


@pytest.mark.parametrize("arguments", ["not json", "[1]", [1]])
async def test_a_call_to_learn_from_must_have_an_object_of_arguments(api, arguments: object) -> None:
    data = [{"prompt": "p", "tool_calls": [{"name": "f", "arguments": arguments}]}]
    answer = await api.ask("POST", "/company-automation/train-adapter", api.acme, json={"training_data": data})
    assert answer.status_code == 422
    assert "arguments" in answer.text
    assert await api.events("company-data") == []


async def test_one_companys_slow_schemas_leave_the_others_a_thread(api, monkeypatch) -> None:
    """The threads beside the loop are few, and everybody's."""
    over, real = threading.Event(), gate.check_parameters

    def slow(parameters: dict[str, Any]) -> None:
        if "slow" in parameters.get("properties", {}):
            assert over.wait(60)
        real(parameters)

    monkeypatch.setattr(gate, "check_parameters", slow)
    tools = {"tools": [LOOKUP | {"parameters": {"properties": {"slow": {}}}}]}
    path = "/company-automation/register-tools"
    waiting = [asyncio.create_task(api.ask("POST", path, api.globex, json=tools, timeout=90)) for _ in range(40)]
    await asyncio.sleep(0.5)
    try:
        async with asyncio.timeout(30):
            assert (await api.ask("POST", path, api.acme, json={"tools": [LOOKUP]})).status_code == 201
            begun = await api.ask("POST", "/company-automation/process", api.acme, json={"data": {"task": "t"}})
            assert begun.status_code == 202
    finally:
        over.set()
        await asyncio.gather(*waiting)


async def test_training_data_is_in_the_log_before_the_request(api) -> None:
    data = [
        {"messages": [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "hello"}]},
        {"prompt": "p", "output": "", "tool_calls": [{"name": "crm_lookup", "arguments": {"b": 1, "a": 2}}]},
        {"prompt": "p", "tool_calls": [{"type": "function", "function": {"name": "f", "arguments": '{ "b": 1}'}}]},
        "A fact.",
    ]  # fmt: skip
    given = {"training_data": data, "settings": {"epochs": 1}, "role": "support"}
    answer = await api.ask("POST", "/company-automation/train-adapter", api.acme, json=given)
    assert answer.status_code == 202
    events = {type(event): event for event in await api.events("company-data")}
    assert set(events) == {ConversationIngested, AgentOutputIngested, TextIngested}
    calls = [e.tool_calls[0] for e in await api.events("company-data") if isinstance(e, AgentOutputIngested)]
    assert [call.arguments for call in calls] == ['{"a":2,"b":1}', '{"b":1}']
    (request,) = await api.events("training-request")
    assert isinstance(request, TrainingRequested)
    assert (request.id, request.role, request.settings) == (answer.json()["run"], "support", '{"epochs":1}')
    assert answer.json()["adapter"] == "acme/support"
    assert len(answer.json()["training_data"]) == 4


async def test_a_job_carries_the_tools_of_its_own_company(api) -> None:
    for key, name in ((api.acme, "mine"), (api.globex, "theirs")):
        await api.ask("POST", "/company-automation/register-tools", key, json={"tools": [LOOKUP | {"name": name}]})
    given = {"data": {"task": "Do it", "data": ["b", "a"]}, "session": "monday:7", "first_step": "call"}
    answer = await api.ask("POST", "/company-automation/process", api.acme, json=given)
    assert (answer.status_code, answer.json()["status"]) == (202, "running")
    (job,) = await api.events("automation-job")
    assert isinstance(job, JobRequested)
    assert (job.job, job.task, job.data) == (answer.json()["job"], "Do it", '["b","a"]')
    assert (job.session, job.first_step) == ("monday:7", "call")
    answer = await api.ask("POST", "/company-automation/process", api.acme, json=given | {"first_step": "leap"})
    assert answer.status_code == 422 and "first_step" in answer.text
    assert list(offers(job.tools or "")) == ["mine"]
    assert "endpoint" not in (job.tools or "")


async def test_the_admin_acts_for_a_company_that_it_names(api) -> None:
    given = {"data": {"task": "Do it"}}
    answer = await api.ask("POST", "/company-automation/process", api.admin, json=given)
    assert (answer.status_code, answer.json()["error"]["code"]) == (422, "company_missing")
    answer = await api.ask("POST", "/company-automation/process", api.admin, json=given | {"company_id": "acme"})
    assert answer.status_code == 202
    (job,) = await api.events("automation-job")
    assert job.company == "acme"


PLACES = {
    "topic": "company-data", "name": "companies", "key": "acme", "job": "j1", "company": "acme", "role": "default",
    "company_id": "acme", "key_id": "00", "file_id": "file-x", "job_id": "ftjob-x",
}  # fmt: skip
BODIES: dict[str, Any] = {
    "/company-automation/register-tools": {"tools": [LOOKUP]},
    "/company-automation/train-adapter": {},
    "/company-automation/process": {"data": {"task": "x"}},
    "/company-automation/jobs/j1/cancel": {},
}


@pytest.mark.parametrize("path", BODIES)
async def test_another_companys_key_sees_nothing_and_writes_nothing(api, path: str) -> None:
    answer = await api.ask("POST", path, api.globex, json=BODIES[path] | {"company_id": "acme"})
    assert (answer.status_code, answer.json()["error"]["code"]) == (404, "not_found")
    for key in (None, "rk_x.y", "nonsense"):
        answer = await api.ask("POST", path, key, json=BODIES[path])
        assert (answer.status_code, answer.json()["error"]["code"]) == (401, "unauthorized")
    for topic in ("company-data", "training-request", "automation-job"):
        assert await api.events(topic) == []


async def test_a_company_joins_and_gets_a_key_that_works(api) -> None:
    assert (await api.ask("POST", "/companies", api.acme, json={"company_id": "new"})).status_code == 403
    answer = await api.ask("POST", "/companies", api.admin, json={"company_id": "new", "name": "New Ltd"})
    assert answer.status_code == 201
    key = answer.json()["api_key"]
    answer = await api.ask("POST", "/company-automation/process", key, json={"data": {"task": "x"}})
    assert answer.status_code == 202
    bad = await api.ask("POST", "/companies", api.admin, json={"company_id": "../up"})
    assert bad.json()["error"]["code"] == "bad_company"


async def test_what_needs_the_database_says_so_when_there_is_none(api) -> None:
    answer = await api.ask("GET", "/company-automation/adapters", api.acme)
    assert (answer.status_code, answer.json()["error"]["code"]) == (503, "try_again")
    assert answer.headers["retry-after"] == "1"
    ready = await api.ask("GET", "/ready")
    assert ready.status_code == 503
    assert list(ready.json()["failing"]) == ["database"]
    assert (await api.ask("GET", "/health")).json() == {"alive": True}


async def test_every_route_has_documentation_and_a_credential(api) -> None:
    described = (await api.ask("GET", "/openapi.json")).json()
    open_to_all = {"/health", "/ready"}
    for path, methods in described["paths"].items():
        for method, operation in methods.items():
            assert operation.get("description") or operation.get("summary"), (method, path)
            assert bool(operation.get("security")) == (path not in open_to_all), (method, path)
            if path not in open_to_all:
                for key in (None, "rk_x.y"):
                    assert (await api.ask(method.upper(), path.format(**PLACES), key, json={})).status_code == 401
    promised = {"process", "train-adapter", "adapters", "register-tools"}
    assert promised <= {path.rpartition("/")[2] for path in described["paths"]}


async def test_a_credential_is_put_on_the_disk_beside_the_event_loop(api, monkeypatch: pytest.MonkeyPatch) -> None:
    put, threads = FileSecrets.put, list[threading.Thread]()

    def seen(*given: Any) -> str:
        threads.append(threading.current_thread())
        return put(*given)

    monkeypatch.setattr(FileSecrets, "put", seen)
    tool = {"name": "a", "endpoint": "https://1.1.1.1/x", "auth": {"type": "bearer", "token": "t"}}
    answer = await api.ask("POST", "/company-automation/register-tools", api.acme, json={"tools": [tool]})
    assert answer.status_code == 201
    assert len(threads) == 1 and threads[0] is not threading.main_thread()


async def test_a_job_does_not_wait_for_the_end_of_a_long_log(api, monkeypatch) -> None:
    async def long(_: object) -> None:
        await asyncio.sleep(0.5)

    monkeypatch.setattr(automation_jobs, "TOOLS_SECONDS", 0.1)
    monkeypatch.setattr(Tools, "catch_up", long)
    given = {"data": {"task": "Say hello."}}
    answer = await api.ask("POST", "/company-automation/process", api.acme, json=given)
    assert (answer.status_code, answer.headers["Retry-After"]) == (503, "1")
    assert "the reading goes on" in answer.json()["error"]["message"]
    await asyncio.sleep(0.6)
    monkeypatch.undo()
    answer = await api.ask("POST", "/company-automation/process", api.acme, json=given)
    assert answer.status_code == 202
