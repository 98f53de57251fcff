"""The agent loop of one job. `step` is all of it: the state after the fold, the event that moved it, what follows.

An input leads to at most one effect (a question to the model, a call of a tool, or the end), whose id is known from the
input's id alone (`projections.jobs.effect_id`). What it is, the state alone decides. So a replay proposes the same ids,
and a repeat changes nothing.
"""

from dataclasses import replace
from typing import Any

from processors import gate
from processors.answers import Malformed, Spoken, ToolCalls, parse
from processors.errors import UnusableSchema
from processors.gate import Allowed, Denied
from projections.jobs import ENDED, JOBS, Job, effect_id, last_input
from projections.projection import Projection
from schemas.codec.codec import encode
from schemas.company import Message, ToolUse
from schemas.envelope import Event, derived_id
from schemas.inference import ANY_CALL, InferenceRequested
from schemas.jobs import FIRST_STEPS, JobCompleted, JobFailed, JobStepped
from schemas.rejected import Unusable
from schemas.tools import ToolCallProposed

# Inputs a job may take: the request, and then an answer or a reply each. Three calls and the words after them.
STEPS = 8
MAX_TOKENS = 128
# A little less than a record batch holds.
EFFECT_BYTES = 900_000


def step(state: Job, event: Event, now: int) -> tuple[Event, ...]:
    """What follows from the newest input, if this event brought the job there; nothing otherwise.

    One event can bring several inputs, where replies were folded before what they reply to. Then the effects of all
    but the newest went out already: the replies are there. What no record can hold ends the job, never the fold.
    """
    follows = _follows(state, event, now)
    unfit = next((why for each in follows if (why := _unfit(each))), None)
    return _fail(state, now, "unfit", unfit) if unfit else follows


def _unfit(event: Event) -> str | None:
    """Why an effect cannot be written."""
    try:
        size = len(encode(event))
    except (Unusable, ValueError, TypeError, OverflowError) as error:
        return f"{event.type} cannot be written: {type(error).__name__}"
    return f"{event.type} takes {size} bytes, at most {EFFECT_BYTES}" if size > EFFECT_BYTES else None


def _follows(state: Job, event: Event, now: int) -> tuple[Event, ...]:
    if state.status in ENDED or event.id not in (state.request, *(reply.id for reply in state.replies)):
        return ()
    last = state.replies[-1] if state.replies else None
    if last is None:
        return _begin(state, now)
    if last.turn is None or last.reason is not None:
        return _fail(state, now, last.reason or "no_answer", last.detail)
    if last.turn.role == "tool":
        return _ask(state, now, "tool_returned", last.turn.name or "")
    return _on_answer(state, last.turn.content, now)


def _begin(state: Job, now: int) -> tuple[Event, ...]:
    if state.first_step not in FIRST_STEPS:
        known = " and ".join(FIRST_STEPS)
        return _fail(state, now, "unknown_first_step", f"first_step is {state.first_step!r}; known are {known}")
    return _ask(state, now, "inference_requested", state.role, ANY_CALL if state.first_step == "call" else None)


def _ask(state: Job, now: int, kind: str, detail: str, must: str | None = None) -> tuple[Event, ...]:
    """Who must call is told what may be called, also one who knows the tools by heart: the answer is held to them."""
    question = InferenceRequested(
        **_effect(state, now),
        job=state.job,
        adapter=f"{state.company}/{state.role}" if state.use_adapter else None,
        messages=conversation(state),
        tools=state.tools,
        max_tokens=MAX_TOKENS,
        must=must,
    )
    return _stepped(state, now, kind, detail), question


def _on_answer(state: Job, text: str, now: int) -> tuple[Event, ...]:
    said = parse(text)
    if isinstance(said, Malformed):
        return _fail(state, now, "malformed_call", said.reason)
    if isinstance(said, Spoken):
        return _complete(state, now, said.text)
    if said.calls == _made(state)[-1:]:
        # It has nothing to add: adapters that learned calls alone know no last word. The tool's reply is the answer.
        return _complete(state, now, _turns(state)[-2].content)
    verdict = _judge(state, said.calls)
    if isinstance(verdict, Denied):
        return _fail(state, now, verdict.reason, verdict.detail)
    if state.step >= STEPS:
        return _fail(state, now, "too_many_steps", f"no answer after {STEPS} steps")
    effect = _effect(state, now)
    call = ToolCallProposed(**effect, call=effect["id"], job=state.job, tool=verdict.tool, arguments=verdict.arguments)
    return _stepped(state, now, "tool_proposed", f"{verdict.tool} {verdict.arguments}"[:500]), call


def _judge(state: Job, calls: tuple[ToolUse, ...]) -> Allowed | Denied:
    if len(calls) > 1:
        return Denied(reason="several_calls", detail=f"{len(calls)} calls in one answer; one is made at a time")
    (call,) = calls
    if call in _made(state):
        return Denied(reason="repeated_call", detail=f"{call.name} was already called with these arguments")
    if state.tools is None:
        # Nobody took a snapshot: the bridge checks against what is registered when the call is made.
        return gate.check_alone(call)
    try:
        return gate.check(call, gate.offers(state.tools))
    except UnusableSchema as error:
        return Denied(reason="unusable_schema", detail=str(error))


def conversation(state: Job) -> tuple[Message, ...]:
    """The job as the model sees it: the same form as the conversations that it was trained on."""
    question = state.task if state.data in ("{}", "null", '""', "[]") else f"{state.task}\n{state.data}"
    return Message(role="user", content=question), *map(_as_trained, _turns(state))


def _turns(state: Job) -> tuple[Message, ...]:
    return tuple(reply.turn for reply in state.replies if reply.turn is not None)


def _as_trained(turn: Message) -> Message:
    said = parse(turn.content) if turn.role == "assistant" else None
    return Message(role="assistant", content=said.text, tool_calls=said.calls) if isinstance(said, ToolCalls) else turn


def _made(state: Job) -> tuple[ToolUse, ...]:
    """The calls of earlier answers: the last turn is the answer under judgement."""
    return tuple(call for turn in map(_as_trained, _turns(state)[:-1]) for call in turn.tool_calls)


def _complete(state: Job, now: int, answer: str) -> tuple[Event, ...]:
    return (JobCompleted(**_effect(state, now), job=state.job, answer=answer, steps=state.step),)


def _fail(state: Job, now: int, reason: str, detail: str) -> tuple[Event, ...]:
    failed = JobFailed(**_effect(state, now), job=state.job, reason=reason, detail=detail[:1_000], steps=state.step)
    return (failed,)


def _stepped(state: Job, now: int, kind: str, detail: str) -> JobStepped:
    envelope = {**_effect(state, now), "id": derived_id(last_input(state), "step")}
    return JobStepped(**envelope, job=state.job, step=state.step, kind=kind, detail=detail)


def _effect(state: Job, now: int) -> dict[str, Any]:
    """The envelope of whatever follows from the last input."""
    cause = last_input(state)
    return {
        "id": effect_id(str(cause)),
        "company": state.company,
        "time": now,
        "causation": cause,
        "correlation": state.correlation,
    }


ACTING_JOBS: Projection[Job] = replace(JOBS, react=step)
