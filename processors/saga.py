"""The agent loop of one job. `step` is all of it: the state after the fold, the event that moved it, what follows.

An input leads to at most one effect (a question to the model, a call of a tool, or the end), whose id is known from the
input's id alone (`projections.jobs.effect_id`). So a replay proposes the same ids, and a repeat changes nothing.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import msgspec

from processors import gate
from processors.gate import Allowed, Denied
from projections.jobs import JOBS, Job
from projections.projection import Projection
from schemas.company import Message, ToolUse
from schemas.envelope import Event, caused_by
from schemas.inference import InferenceCompleted, InferenceFailed, InferenceRequested
from schemas.jobs import JobCompleted, JobFailed, JobRequested, JobStepped
from schemas.tools import ToolCallProposed, ToolReturned

# Inputs a job may take: the request, and then an answer or a reply each. Three calls and the words after them.
STEPS = 8
MAX_TOKENS = 128


def step(state: Job, event: Event, now: int) -> tuple[Event, ...]:
    """What follows from the event, if it is the one that moved the job; nothing otherwise."""
    if state.last != event.id or state.awaiting is None:
        return ()
    match event:
        case JobRequested():
            return _ask(state, event, now)
        case InferenceCompleted():
            return _on_answer(state, event, now)
        case ToolReturned(ok=True):
            return _ask(state, event, now)
        case ToolReturned():
            return _fail(state, event, now, "tool_failed", f"{event.tool}: {event.reason}")
        case InferenceFailed():
            return _fail(state, event, now, event.reason, event.detail)
    return ()


def _ask(state: Job, cause: Event, now: int) -> tuple[Event, ...]:
    question = InferenceRequested(
        **_effect(cause, now),
        job=state.job,
        adapter=f"{state.company}/{state.role}" if state.use_adapter else None,
        messages=conversation(state),
        tools=None if state.use_adapter else state.tools,
        max_tokens=MAX_TOKENS,
    )
    if isinstance(cause, ToolReturned):
        return _stepped(state, cause, now, "tool_returned", f"{cause.tool}: {cause.status}"), question
    return _stepped(state, cause, now, "inference_requested", question.adapter or "base"), question


def _on_answer(state: Job, event: InferenceCompleted, now: int) -> tuple[Event, ...]:
    calls = gate.read_calls(event.text)
    if isinstance(calls, Denied):
        return _fail(state, event, now, calls.reason, calls.detail)
    if not calls:
        done = JobCompleted(**_effect(event, now), job=state.job, answer=event.text.strip(), steps=state.step)
        return (done,)
    verdict = _judge(state, calls)
    if isinstance(verdict, Denied):
        return _fail(state, event, now, verdict.reason, verdict.detail)
    if state.step >= STEPS:
        return _fail(state, event, now, "too_many_steps", f"no answer after {STEPS} steps")
    fields = _effect(event, now)
    call = ToolCallProposed(**fields, call=fields["id"], job=state.job, tool=verdict.tool, arguments=verdict.arguments)
    return _stepped(state, event, now, "tool_proposed", f"{verdict.tool} {verdict.arguments}"[:500]), call


def _judge(state: Job, calls: tuple[ToolUse, ...]) -> Allowed | Denied:
    if len(calls) > 1:
        return Denied(reason="several_calls", detail=f"{len(calls)} calls in one answer; one is made at a time")
    (call,) = calls
    if call in _made(state):
        return Denied(reason="repeated_call", detail=f"{call.name} was already called with these arguments")
    if state.tools is None:
        # Nobody took a snapshot: the bridge checks against what is registered when the call is made.
        return Allowed(tool=call.name, arguments=call.arguments)
    try:
        return gate.check(call, gate.offers(state.tools))
    except msgspec.MsgspecError as error:
        return Denied(reason="unusable_schema", detail=f"the tools that came with the job: {error}")


def conversation(state: Job) -> tuple[Message, ...]:
    """The job as the model sees it: the same form as the conversations that it was trained on."""
    question = state.task if state.data in ("{}", "null", '""', "[]") else f"{state.task}\n{state.data}"
    return Message(role="user", content=question), *map(_as_trained, state.turns)


def _as_trained(turn: Message) -> Message:
    calls = gate.read_calls(turn.content) if turn.role == "assistant" else ()
    if not calls or isinstance(calls, Denied):
        return turn
    return Message(role="assistant", tool_calls=calls)


def _made(state: Job) -> tuple[ToolUse, ...]:
    """The calls of earlier answers: the last turn is the answer under judgement."""
    return tuple(call for turn in map(_as_trained, state.turns[:-1]) for call in turn.tool_calls)


def _fail(state: Job, cause: Event, now: int, reason: str, detail: str) -> tuple[Event, ...]:
    failed = JobFailed(**_effect(cause, now), job=state.job, reason=reason, detail=detail[:1_000], steps=state.step)
    return (failed,)


def _stepped(state: Job, cause: Event, now: int, kind: str, detail: str) -> JobStepped:
    return JobStepped(**caused_by(cause, "step", now), job=state.job, step=state.step, kind=kind, detail=detail)


def _effect(cause: Event, now: int) -> dict[str, Any]:
    """Must agree with `projections.jobs.effect_id`."""
    return caused_by(cause, "effect", now)


AUTOMATION: Projection[Job] = replace(JOBS, react=step)
