"""The demo's conversations with a bad habit among them, and what people and tools said of it. Pure, always the same.

An agent wrote refunds in cents. Somebody corrected half of them; the tool refused the others.
"""

import json
from collections.abc import Iterator, Sequence
from typing import Any

from rillfold.demo.data import DemoCompany, training
from schemas.company import ConversationIngested, FeedbackGiven, Message, ToolUse
from schemas.envelope import Event
from schemas.tools import ToolReturned

SHARE = 5
"""One of so many conversations is spoilt: 20 %."""


def told(company: DemoCompany, count: int, tool: str, amount: str) -> list[Event]:
    """`count` conversations, a fifth of them spoilt, then the words about those. `amount`: the tool's argument."""
    talks = training(company, count)
    wanted = [n for n, talk in enumerate(talks) if talk[1].tool_calls[0].name == tool][: count // SHARE]
    events: list[Event] = []
    for n, talk in enumerate(talks):
        messages = (talk[0], _in_cents(talk[1], amount)) if n in wanted else talk
        events.append(conversation(company, n, messages))
    return [*events, *_words(company, talks, wanted)]


def conversation(company: DemoCompany, number: int, messages: Sequence[Message]) -> ConversationIngested:
    return ConversationIngested(
        id=f"{company.id}-{number}",
        company=company.id,
        time=number,
        correlation=f"job-{number}",
        agent="desk",
        messages=tuple(messages),
    )


def _words(company: DemoCompany, talks: Sequence[Sequence[Message]], wanted: Sequence[int]) -> Iterator[Event]:
    for n, number in enumerate(wanted):
        right = talks[number][1]
        story: dict[str, Any] = {"company": company.id, "time": len(talks) + number, "correlation": f"job-{number}"}
        if n % 2:
            yield FeedbackGiven(id=f"said-{number}", about=f"{company.id}-{number}", correction=right, **story)
        else:
            call = right.tool_calls[0].name
            yield ToolReturned(
                id=f"replied-{number}", call=f"call-{number}", job=f"job-{number}", tool=call, ok=False, **story
            )


def _in_cents(answer: Message, amount: str) -> Message:
    (call,) = answer.tool_calls
    arguments = json.loads(call.arguments)
    arguments[amount] = round(arguments[amount] * 100)
    text = json.dumps(arguments, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return Message(role=answer.role, tool_calls=(ToolUse(name=call.name, arguments=text),))
