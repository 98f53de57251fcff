"""A job goes from its request to its one end; repeats, strays and other orders change nothing."""

from __future__ import annotations

from collections.abc import Iterable

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from processors import gate
from processors.gate import Offer
from processors.saga import ACTING_JOBS, STEPS, conversation
from projections.jobs import Job, effect_id
from schemas.codec.codec import encode
from schemas.company import Message, ToolUse
from schemas.envelope import Event, caused_by
from schemas.inference import ANY_CALL, InferenceCompleted, InferenceFailed, InferenceRequested
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
    assert ACTING_JOBS.react is not None
    state, inputs, sent, answers = ACTING_JOBS.initial("acme/j1"), [first], [], iter(answers)
    while inputs:
        event = inputs.pop(0)
        state = ACTING_JOBS.fold(state, event)
        follows = ACTING_JOBS.react(state, event, NOW)
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
    assert (second.adapter, second.tools) == ("acme/default", TOOLS)
    assert len({event.id for event in sent}) == len(sent)
    assert {event.correlation for event in sent} == {"r1"}


def test_without_an_adapter_the_tools_stand_in_the_question() -> None:
    _, sent = run(requested(use_adapter=False), ["Hello."])
    (question,) = [event for event in sent if isinstance(event, InferenceRequested)]
    assert (question.adapter, question.tools) == (None, TOOLS)


@pytest.mark.parametrize("use_adapter", [True, False])
def test_a_first_step_that_must_call_is_held_to_it_and_what_follows_is_free(use_adapter: bool) -> None:
    state, sent = run(requested(first_step="call", use_adapter=use_adapter), [CALL % "A1", "Refunded."])
    first, second = [event for event in sent if isinstance(event, InferenceRequested)]
    assert (first.must, first.tools) == (ANY_CALL, TOOLS)
    assert (second.must, second.tools) == (None, TOOLS)
    assert (state.status, state.first_step) == ("completed", "call")


def test_a_first_step_that_nobody_knows_ends_the_job() -> None:
    state, sent = run(requested(first_step="leap"), [])
    assert names(sent) == ["job.failed"]
    assert (state.status, state.reason) == ("failed", "unknown_first_step") and "'leap'" in state.detail


def test_data_follows_the_task() -> None:
    state = ACTING_JOBS.fold(ACTING_JOBS.initial("acme/j1"), requested(data='["a","b"]'))
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


def test_the_same_call_again_ends_the_job_with_the_tools_reply() -> None:
    state, sent = run(requested(), [CALL % "A1", CALL % "A1"])
    assert (state.status, state.answer) == ("completed", "done")
    assert names(sent).count("tool_call.proposed") == 1


def test_going_round_in_circles_is_refused() -> None:
    state, sent = run(requested(), [CALL % "A1", CALL % "A2", CALL % "A1"])
    assert (state.status, state.reason) == ("failed", "repeated_call")
    assert names(sent).count("tool_call.proposed") == 2


def test_a_job_that_never_answers_ends() -> None:
    state, sent = run(requested(), [CALL % f"A{n}" for n in range(99)])
    assert (state.status, state.reason, state.step) == ("failed", "too_many_steps", STEPS)
    assert names(sent).count("tool_call.proposed") == (STEPS - 2) // 2


def test_without_a_snapshot_the_bridge_decides() -> None:
    _, sent = run(requested(tools=None), ['<tool_call>{"name": "wipe", "arguments": {}}</tool_call>', "ok"])
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


def react(state: Job, event: Event, out: list[Event]) -> Job:
    """As the fold engine does it: what follows is asked for where the fold changed something."""
    after = ACTING_JOBS.fold(state, event)
    if after is not state:
        out += ACTING_JOBS.react(after, event, NOW)
    return after


@given(st.data())
def test_repeats_and_strays_change_nothing(data: st.DataObject) -> None:
    inputs, sent = story()
    stray = answered(msgspec.structs.replace(sent[1], id="another"), "Ignore me.")
    noisy: list[Event] = []
    for n, event in enumerate(inputs):
        noisy += [event, *data.draw(st.lists(st.sampled_from([*inputs[: n + 1], stray]), max_size=4))]
    state, out = ACTING_JOBS.initial("acme/j1"), []
    for event in noisy:
        state = react(state, event, out)
    assert out == sent
    assert state.replies == run(requested(), [CALL % "A1", "Refunded."])[0].replies


@given(st.data())
def test_topics_have_no_order_between_them(data: st.DataObject) -> None:
    """Whatever interleaving the fold sees, the row is the same, and the newest effect went out."""
    inputs, sent = story()
    own = [inputs[0], *(event for event in sent if isinstance(event, JobStepped | JobCompleted))]
    streams = [own, [inputs[1], inputs[3]], [inputs[2]]]
    state, out = ACTING_JOBS.initial("acme/j1"), []
    while any(streams):
        stream = data.draw(st.sampled_from([stream for stream in streams if stream]))
        state = react(state, stream.pop(0), out)
    assert state == run(requested(), [CALL % "A1", "Refunded."])[0]
    assert {event.id for event in out} <= {event.id for event in sent}


@given(st.data())
def test_a_reply_that_comes_before_its_cause_is_not_lost(data: st.DataObject) -> None:
    """After a crash the log may hand out the answer first, and the request that was not committed after it."""
    inputs, sent = story()
    count = data.draw(st.integers(1, 4))
    state, out = ACTING_JOBS.initial("acme/j1"), []
    for event in data.draw(st.permutations(inputs[:count])):
        state = react(state, event, out)
    newest = [event for event in sent if event.causation == inputs[count - 1].id]
    assert [event.id for event in out][-len(newest) :] == [event.id for event in newest]


def test_failures_of_model_and_tool_end_the_job() -> None:
    state = ACTING_JOBS.fold(ACTING_JOBS.initial("acme/j1"), requested())
    _, question = ACTING_JOBS.react(state, requested(), NOW)
    failed = InferenceFailed(**caused_by(question, 0, NOW), request=question.id, job="j1", reason="adapter_unknown")
    state = ACTING_JOBS.fold(state, failed)
    (end,) = ACTING_JOBS.react(state, failed, NOW)
    assert isinstance(end, JobFailed)
    assert (end.reason, end.id) == ("adapter_unknown", effect_id(failed.id))

    inputs, sent = story()
    (call,) = (event for event in sent if isinstance(event, ToolCallProposed))
    state = ACTING_JOBS.initial("acme/j1")
    for event in inputs[:2]:
        state = ACTING_JOBS.fold(state, event)
    bad = returned(call, ok=False, status=503, body="", reason="server_error")
    state = ACTING_JOBS.fold(state, bad)
    (end,) = ACTING_JOBS.react(state, bad, NOW)
    assert isinstance(end, JobFailed)
    assert (end.reason, end.detail) == ("tool_failed", "refund: server_error")


DEEP = "[" * 20_000
HALF = '<tool_call>{"name": "refund", "arguments": {"order": "\\ud800"}}</tool_call>'


@pytest.mark.parametrize(
    ("tools", "answer", "reason"),
    [
        (DEEP, CALL % "A1", "unfit"),
        ('[{"name":"refund","parameters":' + '{"not":' * 400 + "{}" + "}" * 402 + "]", CALL % "A1", "unfit"),
        ("\ud800", CALL % "A1", "unfit"),
        ('[{"name":"refund","parameters":{"$ref":"#/%24defs/x"}}]', CALL % "A1", "unusable_schema"),
        (None, f'<tool_call>{{"name": "refund", "arguments": {DEEP}', "malformed_call"),
        (None, '<tool_call>{"name": "refund", "arguments": {"a": ' + "[" * 500 + "]" * 500 + "}}</tool_call>",
         "invalid_arguments malformed_call"),
        (None, HALF, "malformed_call"),
        (TOOLS, HALF, "malformed_call"),
        (None, '<tool_call>{"name": "refund", "arguments": {"a": 1e999}}</tool_call>', "malformed_call"),
        (None, '<tool_call>{"name": "refund", "arguments": {"a": ' + "9" * 5_000 + "}}</tool_call>", "malformed_call"),
        (None, '<tool_call>{"name": "../x y", "arguments": {}}</tool_call>', "unknown_tool"),
        (None, '<tool_call>{"name": "", "arguments": {}}</tool_call>', "unknown_tool malformed_call"),
        ('[{"name":"a/b","parameters":{}}]', '<tool_call>{"name": "a/b", "arguments": {}}</tool_call>', "unknown_tool"),
        (None, f'<tool_call>{{"name": "{"n" * 5_000}", "arguments": {{}}}}</tool_call>', "unknown_tool malformed_call"),
        (None, CALL % ("x" * 300_000), "arguments_too_large malformed_call"),
    ],
)  # fmt: skip
def test_an_odd_answer_or_snapshot_ends_the_job(tools: str | None, answer: str, reason: str) -> None:
    state, sent = run(requested(tools=tools, use_adapter=True), [answer])
    assert state.status == "failed"
    assert state.reason in reason.split()
    assert all(len(encode(event)) < 5_000 for event in sent)


@pytest.mark.parametrize("changes", [{"data": '"' + "x" * 1_100_000 + '"'}, {"task": "\ud800"}])
def test_an_effect_that_no_record_can_hold_ends_the_job(changes: dict[str, object]) -> None:
    state, sent = run(requested(**changes), [])
    assert names(sent) == ["job.failed"]
    assert (state.status, state.reason) == ("failed", "unfit")
