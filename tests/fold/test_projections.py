"""Each projection: literally the reduction of its events, indifferent to repeats, its rows within one company."""

from __future__ import annotations

from functools import reduce
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from projections.catalog import PROJECTIONS
from projections.companies import COMPANIES
from projections.company_tools import COMPANY_TOOLS
from projections.costs import COSTS
from projections.datasets import DATASETS, WINDOW
from projections.jobs import JOBS, MOST_STEPS, effect_id
from projections.lora_adapters import LORA_ADAPTERS
from projections.memories import MEMORIES
from projections.projection import Projection
from projections.rollouts import NAMED, REMEMBERED, ROLLOUTS, answering
from projections.sessions import LISTED, SESSIONS
from projections.tool_calls import TOOL_CALLS
from projections.training_runs import TRAINING_RUNS
from schemas.adapters import AdapterJudged, AdapterReady, Evaluation, RolloutDecided
from schemas.company import AgentOutputIngested, CompanyRegistered, ToolAuth, ToolRegistered, ToolRevoked
from schemas.envelope import Event
from schemas.inference import InferenceCompleted, InferenceFailed
from schemas.jobs import JobRequested, JobStepped
from schemas.memory import MemoryForgotten, MemoryNoted
from schemas.tools import ToolCallProposed, ToolReturned
from schemas.topics import BY_NAME
from schemas.training import (
    OffsetRange,
    TrainingAccepted,
    TrainingCompleted,
    TrainingFailed,
    TrainingProgressed,
    TrainingRequested,
)

RANGES = (OffsetRange(topic="company-data", partition=0, start=3, stop=9),)


def envelope(n: int, company: str = "acme") -> dict[str, Any]:
    return {"id": f"e{n}", "company": company, "time": 1000 + n, "correlation": "e0"}


def row(projection: Projection[Any], *events: Event) -> Any:
    """All events must be of one row."""
    (key,) = {projection.key(event) for event in events}
    assert key is not None
    return reduce(projection.fold, events, projection.initial(key))


def output(n: int, success: bool = True) -> AgentOutputIngested:
    return AgentOutputIngested(**envelope(n), agent="support", prompt="?", output="!", success=success)


def tool(n: int, **changes: Any) -> ToolRegistered:
    fields = {"name": "crm", "description": "d", "parameters": "{}", "endpoint": "https://crm"}
    return ToolRegistered(**envelope(n), **{**fields, **changes}, auth=ToolAuth(kind="bearer", secret_ref="vault:1"))


def answer(n: int, request: str, adapter: str | None = None) -> InferenceCompleted:
    tokens = {"prompt_tokens": 10, "completion_tokens": 5, "cached_tokens": 4}
    return InferenceCompleted(
        **envelope(n), request=request, text="t", finish_reason="stop", adapter=adapter, model="m/small", **tokens
    )


def adapter(n: int, company: str = "acme", **changes: Any) -> AdapterReady:
    fields: dict[str, Any] = {
        **{"adapter": "acme/default", "adapter_version": 2, "run": "r", "sha256": "s", "uri": "u", "method": "lora"},
        **{"rank": 16, "alpha": 32.0, "base_model": "b", "base_sha256": "bs", "manifest": "m", "ranges": RANGES},
        **{"seed": 7, "identity": "{}", "evaluation": Evaluation(examples=60, before=0.0, after=1.0)},
    }
    return AdapterReady(**envelope(n, company), **{**fields, **changes})


def test_a_company_keeps_its_first_day_and_its_last_name():
    events = [CompanyRegistered(**envelope(n), name=name) for n, name in enumerate(("Acme", "Acme Corp"))]
    found = row(COMPANIES, *events)
    assert (found.name, found.registered_at) == ("Acme Corp", 1000)


def test_a_tool_is_replaced_by_its_next_registration_and_kept_when_withdrawn():
    found = row(COMPANY_TOOLS, tool(1), tool(2, endpoint="https://new"), ToolRevoked(**envelope(3), name="crm"))
    assert (found.active, found.endpoint, found.revision, found.updated_at) == (False, "https://new", 2, 1003)
    assert found.auth.secret_ref == "vault:1"


def test_a_dataset_counts_events_and_successes_and_no_repeat_nearby():
    events = [output(n, success=n % 2 == 0) for n in range(10)]
    found = row(DATASETS, *events, events[-1], events[-WINDOW // 2])
    assert (found.events, found.successes, found.first_at, found.last_at) == (10, 5, 1000, 1009)


def test_parts_of_a_dataset_in_two_partitions_make_one():
    assert DATASETS.merge is not None
    parts = row(DATASETS, output(1), output(5)), row(DATASETS, output(3))
    whole = DATASETS.merge(*parts)
    assert (whole.events, whole.first_at, whole.last_at) == (3, 1001, 1005)
    assert DATASETS.merge(*reversed(parts)) == whole


def test_an_adapter_version_has_its_whole_lineage_and_never_changes():
    found = row(LORA_ADAPTERS, adapter(1), adapter(2, sha256="another"))
    assert (found.sha256, found.ranges, found.manifest, found.ready_at) == ("s", RANGES, "m", 1001)
    assert found.evaluation == Evaluation(examples=60, before=0.0, after=1.0)


def judged(n: int, **changes: Any) -> AdapterJudged:
    fields: dict[str, Any] = {
        "adapter": "acme/default",
        "adapter_version": 2,
        "run": "r",
        "promoted": False,
        "against": 1,
        "reason": "no_gain",
        "figures": '{"level":0.05}',
    }
    return AdapterJudged(**envelope(n, "acme"), **{**fields, **changes})


def test_a_verdict_and_its_adapter_are_one_row_whichever_comes_first():
    ready, verdict = adapter(2, promoted=False), judged(1)
    found = row(LORA_ADAPTERS, verdict, ready, judged(3, reason="better"), adapter(4, promoted=True))
    assert found == row(LORA_ADAPTERS, ready, verdict)
    assert (found.promoted, found.verdict, found.against, found.judged_at) == (False, "no_gain", 1, 1001)
    assert (found.sha256, found.event, found.figures) == ("s", "e2", '{"level":0.05}')
    alone = row(LORA_ADAPTERS, verdict)
    assert (alone.event, alone.promoted) == ("", False), "no adapter until it is ready"


def test_an_adapter_named_into_another_company_has_no_row():
    assert LORA_ADAPTERS.key(judged(1, adapter="rival/default")) is None
    assert LORA_ADAPTERS.key(adapter(1, company="rival")) is None
    assert LORA_ADAPTERS.key(adapter(1)) == "acme/acme/default/2".removeprefix("acme/")


def requested() -> TrainingRequested:
    return TrainingRequested(**envelope(0), role="support", base_model="b")


def progressed(n: int, step: int) -> TrainingProgressed:
    return TrainingProgressed(**envelope(n), run="e0", phase="train", step=step, steps=10, loss=0.5)


def accepted(n: int) -> TrainingAccepted:
    return TrainingAccepted(**envelope(n), run="e0", worker="w1", ranges=RANGES, manifest="m", examples=5)


def test_a_run_goes_from_the_wish_to_its_one_outcome():
    done = TrainingCompleted(**envelope(4), run="e0", adapter="acme/support", sha256="s", seconds=2.0)
    late = TrainingFailed(**envelope(5), run="e0", reason="lease_lost")
    found = row(TRAINING_RUNS, requested(), accepted(1), progressed(2, 5), progressed(3, 5), done, late)
    assert (found.status, found.adapter, found.step, found.reason) == ("completed", "acme/support", 5, None)
    assert (found.role, found.ranges, found.requested_at, found.updated_at) == ("support", RANGES, 1000, 1004)


def test_a_call_ends_the_same_whichever_topic_is_read_first():
    proposed = ToolCallProposed(**envelope(1), call="c", job="j", tool="crm", arguments="{}")
    returned = ToolReturned(**envelope(2), call="c", job="j", tool="crm", ok=False, status=503, reason="busy")
    found = row(TOOL_CALLS, proposed, returned, returned)
    assert found == row(TOOL_CALLS, returned, proposed)
    assert (found.status, found.http_status, found.proposed_at, found.returned_at) == ("failed", 503, 1001, 1002)


def test_tokens_add_up_by_adapter_and_model_and_a_repeated_answer_costs_once():
    found = row(COSTS, answer(1, "q1", "acme/x"), answer(2, "q2", "acme/x"), answer(3, "q2", "acme/x"))
    assert (found.adapter, found.model, found.requests) == ("acme/x", "m/small", 2)
    assert (found.prompt_tokens, found.completion_tokens, found.cached_tokens) == (20, 10, 8)
    assert COSTS.key(answer(1, "q1")) == "acme/base/m/small"


def asked(n: int, job: str, session: str | None = "s") -> JobRequested:
    return JobRequested(**envelope(n), job=job, task=f"Task {n}", session=session)


def test_a_session_lists_its_last_jobs_once_in_order():
    found = row(SESSIONS, *(asked(n, f"j{n // 2}") for n in range(100)))
    assert (found.jobs, found.first_at, found.last_at) == (50, 1000, 1098)
    assert [each.job for each in found.latest] == [f"j{n}" for n in range(50 - LISTED, 50)]
    assert SESSIONS.key(asked(1, "j", session=None)) is None


def test_parts_of_a_session_in_two_partitions_make_one():
    assert SESSIONS.merge is not None
    odd, even = row(SESSIONS, asked(1, "a"), asked(3, "c")), row(SESSIONS, asked(2, "b"))
    assert SESSIONS.merge(odd, even) == SESSIONS.merge(even, odd) == row(SESSIONS, *map(asked, (1, 2, 3), "abc"))


def noted(n: int, text: str = "Refunds within 30 days") -> MemoryNoted:
    return MemoryNoted(**envelope(n), memory="refunds", text=text, source="job-1")


def test_a_memory_is_replaced_kept_when_forgotten_and_noted_again():
    forgotten = MemoryForgotten(**envelope(3), memory="refunds", reason="was wrong")
    found = row(MEMORIES, noted(1), noted(2, "Refunds within 14 days"), forgotten)
    assert (found.active, found.text, found.revision, found.reason) == (False, "Refunds within 14 days", 2, "was wrong")
    again = MEMORIES.fold(found, noted(4))
    assert (again.active, again.revision, again.reason, again.noted_at) == (True, 3, "", 1001)


def decided(n: int, version: int, percent: int, company: str = "acme") -> RolloutDecided:
    return RolloutDecided(**envelope(n, company), adapter="acme/default", adapter_version=version, percent=percent)


@pytest.mark.parametrize(
    ("steps", "stands"),
    [
        ([(1, 100)], (1, None, 0)),
        ([(1, 100), (2, 10)], (1, 2, 10)),
        ([(1, 100), (2, 10), (2, 50), (2, 100)], (2, None, 0)),
        ([(1, 100), (2, 10), (2, 0)], (1, None, 0)),
        ([(1, 100), (2, 10), (1, 0)], (None, 2, 10)),
        ([(1, 100), (2, 250)], (2, None, 0)),
    ],
)
def test_a_rollout_has_one_stable_version_and_one_candidate(steps: list[tuple[int, int]], stands: tuple[Any, ...]):
    there = [adapter(90 + version, adapter_version=version, promoted=False) for version in (1, 2)]
    found = row(ROLLOUTS, *there, *(decided(n, *step) for n, step in enumerate(steps)))
    assert (found.stable, found.candidate, found.percent) == stands
    assert answering(found, {1, 2}) == found.stable
    assert [(each.version, each.percent) for each in found.decisions] == [(v, min(p, 100)) for v, p in steps]


def version(number: int, promoted: bool = True) -> AdapterReady:
    return adapter(100 + number, adapter_version=number, promoted=promoted)


@pytest.mark.parametrize(
    ("told", "stable", "withdrawn"),
    [
        ([version(1), version(2)], 2, ()),
        ([version(1), version(2, promoted=False)], 1, ()),
        ([version(1), version(2, promoted=False), (2, 100)], 2, ()),
        ([version(1), version(2), (1, 100)], 1, ()),
        ([version(1), version(2), (1, 100), version(3)], 3, ()),
        ([version(1), version(2), (2, 0)], 1, (2,)),
        ([version(1), version(2), (2, 0), (1, 0)], None, (1, 2)),
        ([version(1), version(2), (2, 0), (2, 100)], 2, ()),
        ([version(1), version(2), (2, 0), (2, 5)], 1, ()),
        ([version(1), (2, 100)], 1, ()),
        ([version(1), (2, 0), version(2)], 2, ()),
        ([version(1), (1, 0), version(1)], None, (1,)),
        ([(0, 100), (-1, 0), version(1, promoted=False)], None, ()),
    ],
)
def test_who_was_promoted_last_answers_until_it_is_withdrawn(told: list[Any], stable: int | None, withdrawn: Any):
    events = [decided(n, *each) if isinstance(each, tuple) else each for n, each in enumerate(told)]
    found = row(ROLLOUTS, *events)
    assert (found.stable, found.withdrawn) == (stable, withdrawn)
    assert found == row(ROLLOUTS, *[event for event in events for _ in range(2)]), "a repeat changes nothing"


@given(st.lists(st.tuples(st.integers(0, 7), st.sampled_from([0, 1, 50, 100, None])), max_size=40))
def test_whatever_is_decided_no_withdrawn_version_answers(steps: list[tuple[int, int | None]]):
    """None: the next version is ready, and the gate promotes the odd ones."""
    found, newest = ROLLOUTS.initial("acme/default"), 0
    for n, (number, percent) in enumerate(steps):
        newest += percent is None
        event = version(newest, promoted=newest % 2 == 1) if percent is None else decided(n, number, percent)
        found = ROLLOUTS.fold(found, event)
        assert not {*found.promoted, found.stable, found.candidate} & {*found.withdrawn}
        assert {*filter(found.is_withdrawn, range(10))} == {*found.withdrawn}
        assert found.stable == (found.promoted[-1] if found.promoted else None) == answering(found, range(100))
        assert found.newest == newest and {*found.promoted, *found.withdrawn} <= {*range(1, newest + 1)}
        assert answering(found, {*found.promoted[:-1]}) == (found.promoted[-2] if found.promoted[1:] else None)


def test_a_rollout_does_not_grow_with_its_versions():
    found = row(ROLLOUTS, *map(version, range(1, 3 * REMEMBERED)))
    assert found.promoted == tuple(range(2 * REMEMBERED, 3 * REMEMBERED))
    assert row(ROLLOUTS, version(2**40)).newest == 2**40


def test_a_rollout_does_not_grow_with_what_is_withdrawn_and_lets_none_of_it_back():
    count = 3 * NAMED
    odd, even = range(1, count, 2), range(2, count, 2)
    found = row(ROLLOUTS, version(count, promoted=False), decided(0, 4, 100), *(decided(n, n, 0) for n in odd))
    assert found.withdrawn == tuple(odd)[-NAMED:]
    assert all(map(found.is_withdrawn, odd))
    assert not found.is_withdrawn(4) and not any(map(found.is_withdrawn, even[-NAMED:]))
    again = ROLLOUTS.fold(found, decided(count, 7, 50))
    assert again.is_withdrawn(5) and not again.is_withdrawn(7)
    assert not ROLLOUTS.fold(again, decided(count + 1, 7, 100)).is_withdrawn(7)
    assert ROLLOUTS.fold(again, decided(count + 2, 7, 0)).is_withdrawn(7)


def test_a_decision_about_another_company_s_adapter_has_no_row():
    assert ROLLOUTS.key(decided(1, 1, 100, "globex")) is None


EVENTS = [
    CompanyRegistered(**envelope(1), name="Acme"),
    tool(2),
    ToolRevoked(**envelope(3), name="crm"),
    output(4),
    adapter(5),
    requested(),
    accepted(6),
    progressed(7, 1),
    ToolCallProposed(**envelope(8), call="c", job="j", tool="crm", arguments="{}"),
    ToolReturned(**envelope(9), call="c", job="j", tool="crm", ok=True),
    answer(10, "q"),
    asked(11, "j"),
    noted(12),
    MemoryForgotten(**envelope(13), memory="refunds"),
    decided(14, 1, 10),
    judged(15),
]


@pytest.mark.parametrize("projection", PROJECTIONS.values(), ids=PROJECTIONS)
def test_an_event_seen_a_moment_ago_changes_nothing(projection: Projection[Any]):
    for event in EVENTS:
        if (key := projection.key(event)) is not None:
            once = projection.fold(projection.initial(key), event)
            assert projection.fold(once, event) is once, f"{projection.name} takes {event.type} twice"


@pytest.mark.parametrize("projection", PROJECTIONS.values(), ids=PROJECTIONS)
def test_every_row_begins_with_its_company_and_survives_its_own_json(projection: Projection[Any]):
    for event in EVENTS:
        if (key := projection.key(event)) is not None:
            state = projection.fold(projection.initial(key), event)
            assert key.startswith("acme/") or key == "acme"
            assert state.company == "acme"
            assert msgspec.json.decode(msgspec.json.encode(state), type=projection.state) == state


@pytest.mark.parametrize("projection", PROJECTIONS.values(), ids=PROJECTIONS)
def test_the_sources_of_a_projection_stand_in_the_topic_table_with_equal_partitions(projection: Projection[Any]):
    assert len({BY_NAME[topic].partitions for topic in projection.topics}) == 1
    if len(projection.topics) > 1:
        assert len({BY_NAME[topic].key for topic in projection.topics}) == 1


def test_a_job_grows_no_further_than_a_saga_can_go() -> None:
    """Whoever may write to the topic could make each event dearer than the last."""
    requested = JobRequested(**envelope(1), job="j", task="t")
    steps = [JobStepped(**envelope(n + 2), job="j", step=n, kind="k", detail="") for n in range(4 * MOST_STEPS)]
    state = reduce(JOBS.fold, [requested, *steps], JOBS.initial("acme/j"))
    assert len(state.history) == MOST_STEPS
    last = state.request
    for n in range(4 * MOST_STEPS):
        said = InferenceFailed(**envelope(n + 1000), request=effect_id(last), job="j", reason="r")
        state, last = JOBS.fold(state, said), said.id
    assert len(state.replies) + len(state.early) <= MOST_STEPS + 16
