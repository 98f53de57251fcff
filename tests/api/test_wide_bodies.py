"""However wrong a body is, few faults are told of it: each of them costs everybody's time."""

from __future__ import annotations

import json
from collections.abc import Iterator
from types import UnionType
from typing import Annotated, Any, Union, get_args, get_origin

import pytest
from annotated_types import MaxLen
from fastapi import APIRouter
from pydantic import BaseModel, ConfigDict, FailFast
from pydantic.fields import FieldInfo

from rillfold.api.app import ROUTERS
from rillfold.http.forms import NAMES, Strict
from rillfold.http.strict_json import VALUES, TooManyValues, parsed
from rillfold.v1.routes import openai_routes
from tests.support.engine import FakeEngine

MANY = 20_000
ZEROS = [0] * MANY
NAMED = dict.fromkeys(map(str, range(MANY)), 0)
TRAIN, CHAT, TOOLS = "/company-automation/train-adapter", "/v1/chat/completions", "/company-automation/register-tools"
WIDE: list[tuple[str, Any]] = [
    (TRAIN, {"training_data": [0] * 9_000}),
    (TRAIN, {"training_data": [{"messages": ZEROS}]}),
    (TRAIN, {"training_data": [{"messages": [{"role": "user", "tool_calls": ZEROS}]}]}),
    (TRAIN, {"training_data": [{"prompt": "p", "tool_calls": ZEROS}]}),
    (TRAIN, {"training_data": [NAMED]}),
    (TRAIN, {"training_data": [{"messages": [NAMED, NAMED]}]}),
    (TRAIN, NAMED),
    (TOOLS, {"tools": ZEROS}),
    (TOOLS, {"tools": [NAMED]}),
    (TOOLS, {"tools": [{"name": "a", "endpoint": "https://a.example", "auth": NAMED}]}),
    ("/company-automation/process", {"data": NAMED}),
    ("/companies", NAMED),
]


def _bodies() -> set[Any]:
    routers: list[APIRouter] = [*ROUTERS, openai_routes(FakeEngine())]  # type: ignore[arg-type]
    bodies = (getattr(route, "body_field", None) for router in routers for route in router.routes)
    return {body.field_info.annotation for body in bodies if body is not None}


def _lists(kind: Any, where: str, told: list[Any], seen: set[Any]) -> Iterator[tuple[str, list[Any]]]:
    """Every list in a form and in what it is made of, with what is said of it."""
    if isinstance(kind, type) and issubclass(kind, BaseModel):
        forbids = kind.model_config.get("extra") == "forbid"
        assert issubclass(kind, Strict) or not forbids, f"{kind.__name__} collects the faults of all its names"
        if kind not in seen:
            seen.add(kind)
            for name, field in kind.model_fields.items():
                yield from _lists(field.annotation, f"{kind.__name__}.{name}", _told(field), seen)
    elif get_origin(kind) is Annotated:
        inner, *more = get_args(kind)
        flat = [each for one in more for each in (_told(one) if isinstance(one, FieldInfo) else [one])]
        yield from _lists(inner, where, flat, seen)
    elif get_origin(kind) in (list, tuple, set):
        yield where, told
        yield from _lists(get_args(kind)[0], f"{where}[]", [], seen)
    elif get_origin(kind) in (Union, UnionType):
        for each in get_args(kind):
            yield from _lists(each, where, told, seen)


def _told(field: FieldInfo) -> list[Any]:
    return list(field.metadata)


def test_every_list_of_a_body_has_an_end_and_one_fault_ends_it() -> None:
    found = [each for body in _bodies() for each in _lists(body, body.__name__, [], set())]
    assert {where for where, _ in found} >= {
        "ChatRequest.messages",
        "TrainAdapter.training_data",
        "RegisterTools.tools",
    }
    for where, told in found:
        assert any(isinstance(each, MaxLen) for each in told), f"{where} has no end"
        assert any(isinstance(each, FailFast) for each in told), f"{where} collects the faults of all its items"


@pytest.mark.parametrize(("path", "body"), WIDE)
async def test_of_many_faults_few_are_told(api, path: str, body: Any) -> None:
    answer = await api.ask("POST", path, api.admin if path == "/companies" else api.acme, json=body)
    assert answer.status_code == 422
    error = answer.json()["error"]
    assert error["code"] == "invalid_request"
    assert 0 < len(error["detail"]) < 9, error["detail"]


@pytest.mark.parametrize("path", [TRAIN, CHAT, TOOLS, "/company-automation/process", "/topics/company-data"])
async def test_a_body_of_too_many_values_is_refused_by_name(api, path: str) -> None:
    body = b'{"model":"tiny","data":[%b]}' % b",".join([b"0"] * VALUES)
    given = {"content": body, "headers": {"Content-Type": "application/json"}}
    answer = await api.ask("POST", path, api.acme, **given)
    assert (answer.status_code, answer.json()["error"]["code"]) == (422, "too_many_values")


def test_values_are_counted_and_letters_are_not() -> None:
    said = {"text": ",[{" * VALUES}
    assert parsed(json.dumps(said).encode()) == said
    half = VALUES // 2
    assert len(parsed(json.dumps([{"a": 0}] * (half - 1)).encode())) == half - 1
    for wide in ([{"a": 0}] * half, [[]] * VALUES, {str(n): n for n in range(VALUES)}):
        with pytest.raises(TooManyValues):
            parsed(json.dumps(wide).encode())


def test_a_form_has_few_names() -> None:
    class Loose(Strict):
        model_config = ConfigDict(extra="allow")

    assert Loose.model_validate(dict.fromkeys(map(str, range(NAMES)), 0))
    with pytest.raises(ValueError, match="at most"):
        Loose.model_validate(NAMED)
