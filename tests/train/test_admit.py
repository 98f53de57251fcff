"""Hostile requests, as a table: each is admitted or refused by name, and nothing else happens."""

from __future__ import annotations

import json

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from processors.dataset.selection import Selection
from processors.training import said as say
from processors.training.admit import NotAdmitted, RunBounds, admit, nowhere, wrong_range
from processors.training.settings import METHOD_NAMES, TrainSettings
from schemas.codec.codec import encode
from schemas.training import OffsetRange, TrainingRequested
from tests.support.learning import built, log_of, talk

LONG = 1 << 62


def request(**fields) -> TrainingRequested:
    fields = {"id": "r", "company": "acme", "base_model": "tiny", **fields}
    return TrainingRequested(time=1, correlation="r", **fields)


def missing(base_model: str) -> str | None:
    return None if base_model == "tiny" else f"{base_model[:100]!r} is not on the list"


def answer(asked: TrainingRequested, bounds: RunBounds = RunBounds()) -> TrainSettings | NotAdmitted:  # noqa: B008 - frozen
    return admit(asked, METHOD_NAMES, missing, bounds)


def part(**fields) -> OffsetRange:
    return OffsetRange(**{"topic": "company-data", "partition": 0, "start": 0, "stop": 1, **fields})


def settings(**fields) -> dict[str, str]:
    return {"settings": json.dumps(fields)}


HOSTILE: dict[str, list[dict]] = {
    "bad_role": [
        *(
            {"role": role}
            for role in ("", ".", "..", "../../etc", "a/b", "a\0", "a\n", " ", "é", "x" * 65, "x" * 500_000)
        ),
    ],
    "unknown_method": [{"method": method} for method in ("", "full", "lora\n", "LORA", "__class__", "x" * 500_000)],
    "unknown_base_model": [
        {"base_model": base}
        for base in ("", ".", "..", "/", "~", "~nouser/x", "a\0b", "/etc", "x" * 300, "x" * 500_000, "\n", "tiny/")
    ],
    "bad_ranges": [
        {"ranges": (part(topic="tool-call"),)},
        {"ranges": (part(topic="x" * 500_000),)},
        {"ranges": (part(topic="../company-data"),)},
        {"ranges": (part(partition=-1),)},
        {"ranges": (part(partition=-LONG),)},
        {"ranges": (part(start=-1),)},
        {"ranges": (part(start=2, stop=1),)},
        {"ranges": (part(start=LONG, stop=-LONG),)},
        {"ranges": (part(), part())},
        {"ranges": (part(),) * 100_000},
    ],
    "bad_settings": [
        *(
            {"settings": text}
            for text in ("", " ", "null", "[]", "1", '"steps"', "{", "\0", "[" * 100_000, '{"a":' * 50_000)
        ),
        {"settings": '{"modules": ' + "[" * 50_000 + "]" * 50_000 + "}"},
        {"settings": '{"steps": ' + "9" * 5_000 + "}"},
        {"settings": '{"alpha": NaN}'},
        {"settings": '{"alpha": 1e999}'},
        {"settings": '{"learning_rate": Infinity}'},
        {"settings": '{"stepz": 1}'},
        {"settings": '{"' + "x" * 500_000 + '": 1}'},
        *(settings(rank=n) for n in (0, -1, 65, 2**70, 1.5, "16", None, [16])),
        *(settings(alpha=n) for n in (0, -1, 1e308, 1025, "32", None)),
        *(settings(dropout=n) for n in (-0.1, 1, 1.0, 2)),
        *(settings(learning_rate=n) for n in (0, -1, 1.1, 1e308)),
        *(settings(steps=n) for n in (0, -1, 2**63, 2**70, 1_000_001, 1.5, True)),
        *(settings(warmup=n) for n in (-1, 2**70)),
        *(settings(batch=n) for n in (0, -1, 1025, 2**70)),
        *(settings(micro_batch=n) for n in (0, -1, 1025, 2**70)),
        *(settings(max_tokens=n) for n in (0, -1, 131_073, 2**70)),
        *(settings(seed=n) for n in (2**63, -(2**63) - 1, 2**70, 0.5)),
        *(settings(evaluation_rows=n) for n in (-1, 1001, 2**70)),
        *(settings(modules=names) for names in ([], "q_proj", ["q_proj", "../x"], ["lm_head"], ["q_proj"] * 8, [1])),
    ],
    "too_much": [settings(steps=1_000_000), settings(steps=2_501), settings(steps=20, batch=1001)],
}


@pytest.mark.parametrize(
    ("reason", "fields"),
    [
        pytest.param(reason, fields, id=f"{reason}-{n}")
        for reason, all_ in HOSTILE.items()
        for n, fields in enumerate(all_)
    ],
)
def test_a_hostile_request_is_refused_by_name_in_an_event_that_can_be_written(reason, fields):
    asked = request(**fields)
    refusal = answer(asked)
    assert isinstance(refusal, NotAdmitted)
    assert refusal.reason == reason
    said = say.refused(asked, refusal, 1, 2)
    assert said.detail
    assert len(encode(said)) < 10_000


@pytest.mark.parametrize(
    ("fields", "told"),
    [
        ({"stepz": 1}, ("'stepz'", "did you mean steps?", "docs/training.md")),
        ({"zzz": 1}, ("'zzz'", "known: rank,", "docs/training.md")),
        ({"rank": "16"}, ("rank: a whole number of 1 to 64", '"16"')),
        ({"steps": 2, "rank": 65}, ("rank: a whole number of 1 to 64", "65")),
        ({"learning_rate": 0}, ("learning_rate: a number over 0 and up to 1,",)),
        ({"dropout": 1}, ("dropout: a number from 0 and under 1,",)),
        ({"tools": "none"}, ("tools: one of closed-book, in-prompt", '"none"')),
        ({"modules": ["lm_head"]}, ("modules: a list of 1 to 7, each one of down_proj,", "lm_head")),
        ({"gradient_checkpointing": 1}, ("gradient_checkpointing: true or false",)),
        ({"select": {"agent": ["x"]}}, ("'select.agent'", "did you mean select.agents?")),
        ({"select": {"zzz": 1}}, ("'select.zzz'", "known: select.agents, select.types,")),
        ({"select.agents": ["x"]}, ("'select.agents'", 'a field of select, {"select": {"agents": ...}}')),
        ({"select.agent": ["x"]}, ("'select.agent'", "did you mean select.agents?")),
        ({"steps.x": 1}, ("'steps.x'", "did you mean steps?")),
        ({"select": {"agents": "x"}}, ("select.agents: a list of at most 1000, each a text",)),
        ({"select": {"since": "x"}}, ("select.since: a whole number",)),
        ({"select": 1}, ("select: a JSON object",)),
    ],
)
def test_a_wrong_setting_is_named_with_what_it_may_be(fields, told):
    refusal = answer(request(**settings(**fields)))
    assert isinstance(refusal, NotAdmitted)
    assert all(words in refusal.detail for words in told), refusal.detail


@pytest.mark.parametrize(
    "text",
    ['{"steps": 2, "steps": 30}', '{"select": {"leave_out": ["x"], "leave_out": []}}', '{"select": {}, "select": {}}'],
)
def test_a_setting_that_is_given_twice_is_refused_and_named(text):
    refusal = answer(request(settings=text))
    assert isinstance(refusal, NotAdmitted) and refusal.reason == "bad_settings"
    assert "stands twice" in refusal.detail


@pytest.mark.parametrize(
    "select",
    [
        {"agents": ["desk", "typo"]},
        {"types": ["conversation.ingested", "agent_output.ingested"]},
        {"origins": ["synthetic", "observed"]},
        {"entities": ["real", "typo"]},
        {"held_out": ["typo"]},
        {"leave_out": ["real", "typo"]},
    ],
)
async def test_each_name_that_a_selection_says_and_nothing_has_is_named(select, tmp_path):
    log, noticed = await log_of([talk("Do", "yes", entity="real"), talk("Do", "no")]), []
    (member, names), found = *select.items(), msgspec.convert(select, Selection)
    await built(log, tmp_path, select=found, on_noticed=noticed.append)
    refusal = nowhere(noticed)
    assert refusal is not None and refusal.reason == "no_such_name"
    gone = next(name for name in names if name in ("typo", "agent_output.ingested", "synthetic"))
    assert f"select.{member} names '{gone}'" in refusal.detail
    there = [name for name in names if name != gone]
    noticed.clear()
    await built(log, tmp_path, select=msgspec.convert({member: there}, Selection), on_noticed=noticed.append)
    assert nowhere(noticed) is None


async def test_a_file_that_is_named_and_left_out_is_no_slip(tmp_path):
    log, noticed = await log_of([talk("Do", "yes", entity="a"), talk("Why", "no", entity="b")]), []
    select = Selection(entities=("a", "b"), leave_out=("b",))
    await built(log, tmp_path, select=select, on_noticed=noticed.append)
    assert nowhere(noticed) is None


def test_what_is_at_the_edge_is_admitted():
    edge = {
        "rank": 64,
        "alpha": 1024,
        "learning_rate": 1,
        "seed": 2**63 - 1,
        "evaluation_rows": 0,
        "modules": ["v_proj"],
    }
    assert isinstance(answer(request(**settings(**edge, steps=20_000, batch=1))), TrainSettings)
    assert isinstance(answer(request(**settings(seed=-(2**63)), ranges=(part(start=0, stop=0),))), TrainSettings)


def test_the_operator_says_how_much_one_run_may_learn_from():
    assert isinstance(answer(request(**settings(steps=5, batch=2)), RunBounds(texts=10)), TrainSettings)
    refusal = answer(request(**settings(steps=6, batch=2)), RunBounds(texts=10))
    assert isinstance(refusal, NotAdmitted)
    assert (refusal.reason, "12" in refusal.detail, "10" in refusal.detail) == ("too_much", True, True)


def test_a_partition_that_is_not_there_is_named():
    assert wrong_range((part(partition=3),), {"company-data": range(4)}) is None
    assert "no 4" in str(wrong_range((part(partition=4),), {"company-data": range(4)}))


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)
fields = st.dictionaries(st.sampled_from(TrainSettings.__struct_fields__), json_values)


@given(st.text(), st.text(), st.text() | json_values.map(json.dumps) | fields.map(json.dumps))
def test_whatever_is_asked_has_an_answer(role, base_model, given_settings):
    found = answer(request(role=role, base_model=base_model, settings=given_settings))
    assert isinstance(found, NotAdmitted)
    assert isinstance(answer(request(settings=given_settings)), TrainSettings | NotAdmitted)


@given(st.text(st.characters()) | st.text(st.characters(categories=["Cs"]), min_size=1))
def test_whatever_an_error_says_can_be_told(text):
    assert encode(say.failed(request(), "internal", text, 1, 2))


@pytest.mark.parametrize(
    "select",
    [
        {"agents": [f"a{n}" for n in range(1001)]},
        {"leave_out": [f"a{n}" for n in range(1001)]},
        {"agents": ["\u00e4" * 200] * 100},
        {"since": 10**300},
        {"until": -(10**30)},
    ],
)
def test_settings_that_no_adapter_could_tell_of_are_refused_before_anything_is_read(select):
    refusal = answer(request(**settings(select=select)))
    assert isinstance(refusal, NotAdmitted) and refusal.reason == "bad_settings"
