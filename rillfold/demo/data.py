"""Company data for the demo: pure, seeded, with values in the held-out part that no training row has.

Both companies hear partly the same sentences; each wants its own tool called.
"""

import json
from collections.abc import Callable, Iterator
from itertools import islice
from random import Random
from typing import Any, NamedTuple
from zlib import crc32

from processors.dataset.turns import is_held_out
from processors.synthetic.vocabulary import FIRST, KINDS_OF_STREET, LAST, STREETS
from schemas.company import Message, ToolUse

Values = dict[str, Any]


class DemoTool(NamedTuple):
    """`arguments` maps an argument's name to the value that fills it."""

    name: str
    description: str
    arguments: dict[str, str]
    sentences: tuple[str, ...]
    reply: dict[str, str]
    answer: str

    def parameters(self) -> dict[str, Any]:
        """JSON schema of the arguments."""
        properties = {
            name: {"type": "number" if kind == "amount" else "string"} for name, kind in self.arguments.items()
        }
        required = list(self.arguments)
        return {"type": "object", "properties": properties, "required": required, "additionalProperties": False}


class DemoCompany(NamedTuple):
    id: str
    name: str
    tools: tuple[DemoTool, ...]

    def tool(self, name: str) -> DemoTool:
        return next(tool for tool in self.tools if tool.name == name)


class Request(NamedTuple):
    """What a person says, and the one right call, with canonical arguments."""

    text: str
    call: ToolUse
    values: Values


_LOOK_UP = (
    "Please look up customer {customer}.",
    "What do we know about customer {customer}?",
    "Can you pull the record of {customer} for me?",
    "I need the details of customer {customer}.",
    "Show me customer {customer}, please.",
)
_REFUND = (
    "Refund {amount} euros to customer {customer}.",
    "Customer {customer} should get {amount} euros back.",
    "Please pay {amount} euros back to {customer}.",
    "{customer} was charged too much, return {amount} euros.",
    "Give {amount} euros back to customer {customer}, please.",
)
_VISIT = (
    "Book a visit to {site} for {person}.",
    "{person} wants somebody to come to {site}.",
    "Please send someone to {site}, ask for {person}.",
    "We need a visit at {site}, the contact is {person}.",
    "Can someone come by at {site}? {person} will be there.",
)

ACME = DemoCompany(
    "acme",
    "Acme Retail",
    (
        DemoTool(
            "crm_lookup",
            "Find a customer in the CRM.",
            {"customer_id": "customer"},
            _LOOK_UP,
            {"customer_id": "customer", "owner": "person"},
            "Customer {customer} is looked after by {person}.",
        ),
        DemoTool(
            "issue_refund",
            "Pay money back to a customer.",
            {"customer_id": "customer", "amount": "amount"},
            _REFUND,
            {"status": "done", "amount": "amount"},
            "Done: {amount} euros refunded.",
        ),
        DemoTool(
            "book_visit",
            "Book a visit at a site.",
            {"site": "site", "contact": "person"},
            _VISIT,
            {"status": "done", "site": "site"},
            "Done: the visit at {site} is booked.",
        ),
    ),
)
GLOBEX = DemoCompany(
    "globex",
    "Globex Field Service",
    (
        DemoTool(
            "find_account",
            "Open an account by its number.",
            {"account": "customer"},
            _LOOK_UP,
            {"account": "customer", "manager": "person"},
            "Account {customer} is managed by {person}.",
        ),
        DemoTool(
            "credit_note",
            "Write a credit note for an account.",
            {"account": "customer", "value": "amount"},
            _REFUND,
            {"status": "done", "value": "amount"},
            "Done: a credit note of {amount} euros is written.",
        ),
        DemoTool(
            "dispatch_engineer",
            "Send an engineer to a location.",
            {"location": "site", "ask_for": "person"},
            _VISIT,
            {"status": "done", "location": "site"},
            "Done: an engineer goes to {site}.",
        ),
    ),
)
COMPANIES = (ACME, GLOBEX)

TALKS, PLAIN, REQUESTS = 200, 200, 60
"""How many conversations a company gives to learn from that call, and that do not; and how many held-out requests it
is measured on."""
RECIPE: dict[str, Any] = {"dropout": 0.0, "steps": 26, "batch": 8, "micro_batch": 8}
"""Training settings of the demo that are not the defaults: they save time, and docs/training.md says what they cost."""
RECIPES: dict[str, dict[str, Any]] = {
    ACME.id: RECIPE,
    GLOBEX.id: {**RECIPE, "activation": "generation-prompt", "rank": 32, "alpha": 64.0},
}


def training(company: DemoCompany, count: int = TALKS, finished: float = 0.4) -> list[tuple[Message, ...]]:
    """Conversations to learn from. A share goes on to the tool's result and the final answer."""
    random = Random(f"{company.id}/training/0")  # noqa: S311 - repeatable, not secret
    requests = _requests(company, random, side=0)
    conversations = []
    for request in islice(requests, count):
        whole = conversation(company, request)
        conversations.append(whole if random.random() < finished else whole[:2])
    return conversations


def held_out(company: DemoCompany, count: int = REQUESTS) -> list[Request]:
    """Requests that the dataset's own rule keeps out of training, made of values that training never sees."""
    random = Random(f"{company.id}/held out/0")  # noqa: S311
    return list(islice(_requests(company, random, side=1), count))


def conversation(company: DemoCompany, request: Request) -> tuple[Message, ...]:
    """The request, the call, the tool's result, the answer."""
    tool = company.tool(request.call.name)
    return (
        Message(role="user", content=request.text),
        Message(role="assistant", tool_calls=(request.call,)),
        Message(role="tool", name=tool.name, content=_canonical(_filled(tool.reply, request.values))),
        Message(role="assistant", content=tool.answer.format(**request.values)),
    )


def reply(company: DemoCompany, tool: str, arguments: Values) -> Values:
    """What the company's own endpoint answers. What the arguments do not say is looked up: always the same person."""
    chosen = company.tool(tool)
    known = {kind: arguments[name] for name, kind in chosen.arguments.items()}
    known.setdefault("person", draw("person", Random(_canonical(arguments)), side=1))  # noqa: S311
    return _filled(chosen.reply, known)


def _requests(company: DemoCompany, random: Random, side: int) -> Iterator[Request]:
    """Tools in turn, endless, no sentence twice, each on the side where the dataset's rule puts it."""
    seen: set[str] = set()
    while True:
        for tool in company.tools:
            while True:
                values = {kind: draw(kind, random, side) for kind in _MAKERS}
                text = random.choice(tool.sentences).format(**values)
                if text not in seen and is_held_out(text) == bool(side):
                    break
            seen.add(text)
            yield Request(text, ToolUse(name=tool.name, arguments=_canonical(_filled(tool.arguments, values))), values)


def draw(kind: str, random: Random, side: int) -> Any:
    """A value of one side: the value's own hash decides which it is on, so no value is on both."""
    while True:
        value = _MAKERS[kind](random)
        if (crc32(str(value).encode()) % 4 == 0) == bool(side):
            return value


_MAKERS: dict[str, Callable[[Random], Any]] = {
    "customer": lambda random: f"C-{random.randrange(10_000, 100_000)}",
    "amount": lambda random: random.randrange(1_000, 90_000) / 100,
    "person": lambda random: f"{random.choice(FIRST.split())} {random.choice(LAST.split())}",
    "site": lambda random: (
        f"{random.randrange(2, 99)} {random.choice(STREETS.split())} {random.choice(KINDS_OF_STREET.split())}"
    ),
}


def _filled(shape: dict[str, str], values: Values) -> Values:
    return {name: values.get(kind, kind) for name, kind in shape.items()}


def _canonical(value: Values) -> str:
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
