"""A job goes from its request to its one end; repeats, strays and other orders change nothing."""

from __future__ import annotations

from collections.abc import Iterable

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from processors import gate
from processors.gate import Offer
from processors.saga import AUTOMATION, STEPS, conversation
from projections.jobs import Job, effect_id
from schemas.company import Message, ToolUse
from schemas.envelope import Event, caused_by
from schemas.inference import InferenceCompleted, InferenceFailed, InferenceRequested
from schemas.jobs import JobCompleted, JobFailed, JobRequested, JobStepped
from schemas.tools import ToolCallProposed, ToolReturned

NOW = 1_700_000_000_000_000
TOOLS = gate.canonical([Offer(name="refund", parameters={"properties": {"order": {"type": "string"}}})])
CALL = '<tool_call>\n{"name": "refund", "arguments": {"order": "%s"}}\n</tool_call>'


def requested(**changes: object) -> JobRequested:
    fields = {"id": "r1", "company": "acme", "time": NOW, "correlation": "r1", "job": "j1", "tools": TOOLS}
    return JobRequested(**(fields | {"task": "Refund order A1"} | changes))


def answered(question: InferenceRequested, text: str) -> InferenceCompleted:
    return InferenceCompleted(
        **caused_by(question, 0, NOW), request=question.id, job=question.job, text=text, finish_reason="stop",
        model="m", adapter=question.adapter, adapter_version=1, prompt_tokens=5, completion_tokens=7,
    )  # fmt: skip


def returned(call: ToolCallProposed, **changes: object) -> ToolReturned:
    fields = {"call": call.call, "job": call.job, "tool": call.tool, "ok": True, "status": 200, "body": "done"}
    return ToolReturned(**caused_by(call, 0, NOW), **(fields | changes))


def world(outgoing: Event, answers: Iterable[str]) -> tuple[Event, ...]:
    """The model and the tools of the test: what comes back for an effect."""
    match outgoing:
        case InferenceRequested():
            return (answered(outgoing, next(iter(answers))),)
        case ToolCallProposed():
            return (returned(outgoing),)
        case JobStepped() | JobCompleted() | JobFailed():
            return (outgoing,)
    return ()


def run(first: JobRequested, answers: Iterable[str]) -> tuple[Job, list[Event]]:
    """To the end of the story: the state and everything the saga sent."""
    assert AUTOMATION.react is not None
    state, inputs, sent, answers = AUTOMATION.initial("acme/j1"), [first], [], iter(answers)
    while inputs:
        event = inputs.pop(0)
        state = AUTOMATION.fold(state, event)
        follows = AUTOMATION.react(state, event, NOW)
        sent += follows
        inputs += [back for outgoing in follows for back in world(outgoing, answers)]
    return state, sent


def names(events: Iterable[Event]) -> list[str]:
    return [event.type for event in events]


def test_a_call_its_reply_and_the_words_after_it() -> None:
    state, sent = run(requested(), [CALL % "A1", "Order A1 is refunded."])
    assert names(sent) == [
        "job.stepped", "inference.requested", "job.stepped", "tool_call.proposed",
        "job.stepped", "inference.requested", "job.completed",
    ]  # fmt: skip
    assert (state.status, state.answer, state.step) == ("completed", "Order A1 is refunded.", 4)
    assert [line.kind for line in state.history] == ["inference_requested", "tool_proposed", "tool_returned"]
    assert (state.prompt_tokens, state.completion_tokens) == (10, 14)
    second = [event for event in sent if isinstance(event, InferenceRequested)][1]
    assert second.messages == (
        Message(role="user", content="Refund order A1"),
        Message(role="assistant", tool_calls=(ToolUse(name="refund", arguments='{"order":"A1"}'),)),
        Message(role="tool", name="refund", content="done"),
    )
    assert second.adapter == "acme/default"
    assert second.tools is None
    assert len({event.id for event in sent}) == len(sent)
    assert {event.correlation for event in sent} == {"r1"}


def test_without_an_adapter_the_tools_stand_in_the_question() -> None:
    _, sent = run(requested(use_adapter=False), ["Hello."])
    (question,) = [event for event in sent if isinstance(event, InferenceRequested)]
    assert (question.adapter, question.tools) == (None, TOOLS)


def test_data_follows_the_task() -> None:
    state = AUTOMATION.fold(AUTOMATION.initial("acme/j1"), requested(data='["a","b"]'))
    assert conversation(state) == (Message(role="user", content='Refund order A1\n["a","b"]'),)


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        ('<tool_call>{"name": "wipe", "arguments": {}}</tool_call>', "unknown_tool"),
        ('<tool_call>{"name": "refund", "arguments": {"order": 7}}</tool_call>', "invalid_arguments"),
        ('<tool_call>{"name": "refund"', "malformed_call"),
        (CALL % "A1" + CALL % "A2", "several_calls"),
    ],
)
def test_a_denied_call_never_goes_out(answer: str, reason: str) -> None:
    state, sent = run(requested(), [answer])
    assert (state.status, state.reason) == ("failed", reason)
    assert "tool_call.proposed" not in names(sent)


def test_the_same_call_is_not_made_twice() -> None:
    state, sent = run(requested(), [CALL % "A1", CALL % "A1"])
    assert (state.status, state.reason) == ("failed", "repeated_call")
    assert names(sent).count("tool_call.proposed") == 1


def test_a_job_that_never_answers_ends() -> None:
    state, sent = run(requested(), [CALL % f"A{n}" for n in range(99)])
    assert (state.status, state.reason, state.step) == ("failed", "too_many_steps", STEPS)
    assert names(sent).count("tool_call.proposed") == (STEPS - 2) // 2


def test_without_a_snapshot_the_bridge_decides() -> None:
    _, sent = run(requested(tools=None), ['<tool_call>{"name": "wipe"}</tool_call>', "ok"])
    assert "tool_call.proposed" in names(sent)


@pytest.mark.parametrize("tools", ["", "{}", '[{"name": 1}]', '[{"name":"refund","parameters":{"$ref":"http://x"}}]'])
def test_a_broken_snapshot_fails_the_job_and_not_the_fold(tools: str) -> None:
    state, _ = run(requested(tools=tools), [CALL % "A1"])
    assert (state.status, state.reason) == ("failed", "unusable_schema")


def story() -> tuple[list[Event], list[Event]]:
    """Every event of a whole job that the saga's three topics carry, and what it sent."""
    _, sent = run(requested(), [CALL % "A1", "Refunded."])
    first, second = (event for event in sent if isinstance(event, InferenceRequested))
    (call,) = (event for event in sent if isinstance(event, ToolCallProposed))
    inputs = [requested(), answered(first, CALL % "A1"), returned(call), answered(second, "Refunded.")]
    return inputs, sent


@given(st.data())
def test_repeats_and_strays_change_nothing(data: st.DataObject) -> None:
    inputs, sent = story()
    stray = answered(msgspec.structs.replace(sent[1], id="another"), "Ignore me.")
    noisy: list[Event] = []
    for n, event in enumerate(inputs):
        noisy += [event, *data.draw(st.lists(st.sampled_from([*inputs[: n + 1], stray]), max_size=4))]
    state, out = AUTOMATION.initial("acme/j1"), []
    for event in noisy:
        state = AUTOMATION.fold(state, event)
        out += AUTOMATION.react(state, event, NOW)
    assert {event.id: event for event in out} == {event.id: event for event in sent}
    assert state.turns == run(requested(), [CALL % "A1", "Refunded."])[0].turns


@given(st.data())
def test_own_events_may_arrive_at_any_time(data: st.DataObject) -> None:
    """automation-job and the result topics share no order: job.stepped and the end may be folded early or late."""
    inputs, sent = story()
    own = [event for event in sent if isinstance(event, JobStepped | JobCompleted)]
    places = sorted(data.draw(st.lists(st.integers(1, 4), min_size=len(own), max_size=len(own))))
    # The end cannot come before the answer that it follows from.
    places[-1] = len(inputs)
    mixed: list[Event] = []
    for n, event in enumerate(inputs, start=1):
        mixed += [event, *(mine for place, mine in zip(places, own, strict=True) if place == n)]
    state, out = AUTOMATION.initial("acme/j1"), []
    for event in mixed:
        state = AUTOMATION.fold(state, event)
        out += AUTOMATION.react(state, event, NOW)
    assert out == sent
    assert (state.status, state.answer) == ("completed", "Refunded.")


def test_failures_of_model_and_tool_end_the_job() -> None:
    state = AUTOMATION.fold(AUTOMATION.initial("acme/j1"), requested())
    _, question = AUTOMATION.react(state, requested(), NOW)
    failed = InferenceFailed(**caused_by(question, 0, NOW), request=question.id, job="j1", reason="adapter_unknown")
    state = AUTOMATION.fold(state, failed)
    (end,) = AUTOMATION.react(state, failed, NOW)
    assert isinstance(end, JobFailed)
    assert (end.reason, end.id) == ("adapter_unknown", effect_id(failed))

    inputs, sent = story()
    (call,) = (event for event in sent if isinstance(event, ToolCallProposed))
    state = AUTOMATION.initial("acme/j1")
    for event in inputs[:2]:
        state = AUTOMATION.fold(state, event)
    bad = returned(call, ok=False, status=503, body="", reason="server_error")
    state = AUTOMATION.fold(state, bad)
    (end,) = AUTOMATION.react(state, bad, NOW)
    assert isinstance(end, JobFailed)
    assert (end.reason, end.detail) == ("tool_failed", "refund: server_error")
