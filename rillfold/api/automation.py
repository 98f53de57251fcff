"""/company-automation: tools, training, adapters. Each request becomes events; what it answers is where they stand."""

from __future__ import annotations

import asyncio
from functools import partial
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Response
from pydantic import Field, SecretStr, model_validator

from processors import gate
from processors.parameters import canonical
from projections.lora_adapters import LORA_ADAPTERS
from projections.rollouts import ROLLOUTS
from rillfold.api.access import Asker, Serving, company_of
from rillfold.api.company_data import Conversation, Output, data_event
from rillfold.event_log import first
from rillfold.http.errors import ApiError
from rillfold.http.forms import Strict
from rillfold.http.passed_on import passed_on
from rillfold.http.strict_json import StrictRoute
from rillfold.wiring import TOOLS_SECONDS, Services
from schemas.company import ToolAuth, ToolRegistered
from schemas.envelope import Event
from schemas.training import TrainingRequested
from schemas.words import REGISTERED
from streams.bridge.credentials import KINDS, check_header
from streams.bridge.endpoint import origin_of, registrable
from streams.bridge.secrets import SecretStr as Sealed
from streams.bridge.tools import offer_size
from streams.log.port import Position

router = APIRouter(prefix="/company-automation", tags=["company automation"], route_class=StrictRoute)
ADAPTERS = 1_000
APPENDED = 2_000
AUTH = r"^[a-z][a-z0-9_]{0,39}$"


class Auth(Strict):
    """bearer and api_key take `token`, basic takes `username` and `password`, header takes `header` and `token`. What
    an application of this installation adds takes `token`."""

    type: Literal["none", "bearer", "basic", "api_key", "header"] | Annotated[str, Field(pattern=AUTH)] = "none"
    token: SecretStr | None = Field(default=None, max_length=8_000)
    username: str | None = Field(default=None, max_length=1_000)
    password: SecretStr | None = Field(default=None, max_length=1_000)
    header: str | None = Field(default=None, pattern=r"^[A-Za-z0-9-]{1,64}$")

    @model_validator(mode="after")
    def _complete(self) -> Auth:
        credential = self.credential()
        if self.type != "none" and not (credential and credential.isascii() and credential.isprintable()):
            raise ValueError(f"auth of type {self.type} lacks its credential, or it is not printable ASCII")
        if self.type == "header" and not self.header:
            raise ValueError("auth of type header names its header")
        return self

    def credential(self) -> str | None:
        if self.type == "basic":
            return f"{self.username}:{self.password.get_secret_value()}" if self.username and self.password else None
        return self.token.get_secret_value() if self.token else None


class NewTool(Strict):
    name: str = Field(pattern=REGISTERED)
    description: str = Field("", max_length=2_000)
    parameters: dict[str, Any] = Field(default={})
    """A JSON schema. What it does not describe is not sent."""
    endpoint: str = Field(max_length=2_000)
    method: Literal["GET", "POST", "PUT", "PATCH", "DELETE"] = "POST"
    auth: Auth = Auth()


class RegisterTools(Strict):
    company_id: str | None = None
    tools: list[NewTool] = Field(min_length=1, max_length=100, fail_fast=True)


class Placed(Strict):
    """An event and where it stands in the log: `min_offset` of a query takes topic/partition/offset."""

    id: str
    topic: str
    partition: int
    offset: int


class RegisteredTools(Strict):
    company_id: str
    tools: dict[str, Placed]


class TrainAdapter(Strict):
    company_id: str | None = None
    role: str = Field("default", pattern=REGISTERED)
    training_data: list[Conversation | Output | str] = Field([], max_length=10_000, fail_fast=True)
    """Becomes company-data events first: what is trained always stands in the log."""
    base_model: str | None = None
    method: str = "lora"
    settings: dict[str, Any] = Field(default={})


class TrainingStarted(Strict):
    company_id: str
    run: str
    adapter: str
    training_data: list[Placed]
    requested: Placed


@router.post("/register-tools", status_code=201)
async def register_tools(given: RegisterTools, asker: Asker, serving: Serving) -> RegisteredTools:
    """Offer tools to the company's jobs. A name that is registered again replaces the tool."""
    company = company_of(asker, given.company_id)
    for tool in given.tools:
        async with serving.checks.turn(company):
            await asyncio.to_thread(gate.check_parameters, tool.parameters)
        if tool.auth.type not in (known := (*KINDS, *serving.installed.auths)):
            raise ApiError(422, "unknown_auth", f"{tool.name} has auth {tool.auth.type!r}: take {', '.join(known)}.")
        if tool.auth.header:
            check_header(tool.auth.header)
    await serving.tools.catch_up_within(TOOLS_SECONDS)
    serving.tools.check_room(
        company,
        {t.name: offer_size(t.name, t.description, gate.canonical(t.parameters), t.endpoint) for t in given.tools},
    )
    private, find = serving.settings.allow_private_tools, partial(serving.lookups.find, company)
    await asyncio.gather(*(registrable(url, private, find) for url in {tool.endpoint for tool in given.tools}))
    # Each credential is on the disk before its tool is in the log.
    events = await asyncio.to_thread(lambda: [_tool_event(tool, company, serving) for tool in given.tools])
    placed = await publish(serving, events)
    return RegisteredTools(company_id=company, tools=dict(zip((t.name for t in given.tools), placed, strict=True)))


def _tool_event(tool: NewTool, company: str, serving: Services) -> ToolRegistered:
    """The credential goes into the store before anything is published, and the event holds its reference."""
    credential = tool.auth.credential()
    stored = serving.secrets.put(company, origin_of(tool.endpoint), Sealed(credential)) if credential else None
    return ToolRegistered(
        **first(company),
        name=tool.name,
        description=tool.description,
        parameters=canonical(tool.parameters),
        endpoint=tool.endpoint,
        method=tool.method,
        auth=ToolAuth(kind=tool.auth.type, secret_ref=stored, header=tool.auth.header),
    )


@router.post("/train-adapter", status_code=202)
async def train_adapter(given: TrainAdapter, asker: Asker, serving: Serving) -> TrainingStarted:
    """Train an adapter on everything of the company, the data given here included."""
    company = company_of(asker, given.company_id)
    data = [data_event(each, given.role, first(company)) for each in given.training_data]
    placed = await publish(serving, data)
    request = TrainingRequested(
        **first(company),
        role=given.role,
        base_model=given.base_model or serving.settings.base_name(),
        method=given.method,
        settings=canonical(given.settings),
    )
    (requested,) = await publish(serving, [request])
    adapter = f"{company}/{given.role}"
    return TrainingStarted(
        company_id=company, run=request.id, adapter=adapter, training_data=placed, requested=requested
    )


@router.get("/adapters", response_model=dict[str, Any])
async def adapters(asker: Asker, serving: Serving, company_id: str | None = None, after: str | None = None) -> Response:
    """The company's adapters, newest version last. `next` is `after` of the next page; null on the last.

    `rollouts` says of each role (of the first 1,000) which version answers, and which are withdrawn.
    """
    company = company_of(asker, company_id)
    page = await serving.reads.page(LORA_ADAPTERS, company, after, ADAPTERS)
    rollouts = await serving.reads.page(ROLLOUTS, company, None, ADAPTERS)
    ready = [row.compact for row in page.rows if row.value["event"]]
    told = {"adapters": ready, "rollouts": [row.compact for row in rollouts.rows]}
    return passed_on({"company_id": company, **told, "next": page.next})


async def publish(serving: Services, events: list[Any]) -> list[Placed]:
    """In order; acknowledged by the log when this returns. All are written down before the first is sent."""
    records = [serving.producer.record(event) for event in events]
    positions: list[Position] = []
    for start in range(0, len(records), APPENDED):
        positions += await serving.log.append(records[start : start + APPENDED])
    return [placed(event, position) for event, position in zip(events, positions, strict=True)]


def placed(event: Event, position: Position) -> Placed:
    return Placed(id=event.id, topic=position.topic, partition=position.partition, offset=position.offset)
