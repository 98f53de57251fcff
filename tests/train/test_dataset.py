"""The dataset's rule: what is learned from, what is held out, and the bytes that come of it."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from processors.dataset.turns import TURNS, DatasetCounts, in_order, is_held_out, parse_row, row, select, teaches
from processors.measure.foreign import TOOLS, Foreign
from rillfold.demo import data
from rillfold.demo.plain import NO_TOOL, plain
from schemas.company import AgentOutputIngested, ConversationIngested, Message, TextIngested, ToolUse
from schemas.envelope import Origin
from schemas.training import OffsetRange

CALL = ToolUse(name="crm_lookup", arguments='{"customer_id":"C-1"}')
TALK = (
    Message(role="user", content="Look up C-1"),
    Message(role="assistant", tool_calls=(CALL,)),
    Message(role="tool", name="crm_lookup", content="{}"),
    Message(role="assistant", content="Done."),
)


def event(cls, **fields):
    return cls(id="e", company=fields.pop("company", "acme"), time=1, correlation="e", **fields)


def examples(event, company="acme"):
    return list(select(event, Origin("company-data", 2, 7), company))


def test_every_assistant_turn_is_one_example_with_what_stood_before_it():
    first, second = examples(event(ConversationIngested, agent="a", messages=TALK))
    assert (first.prompt, first.answer) == (TALK[:1], TALK[1])
    assert (second.prompt, second.answer) == (TALK[:3], TALK[3])
    assert (first.topic, first.partition, first.offset, first.turn, second.turn) == ("company-data", 2, 7, 1, 3)


def test_outputs_count_only_when_they_succeeded():
    output = {"agent": "a", "prompt": "Look up C-1", "output": "", "tool_calls": (CALL,)}
    (one,) = examples(event(AgentOutputIngested, **output, success=True))
    assert one.prompt == (Message(role="user", content="Look up C-1"),)
    assert one.answer.tool_calls == (CALL,)
    assert examples(event(AgentOutputIngested, **output, success=False)) == []


def test_other_companies_and_other_events_teach_nothing():
    assert examples(event(ConversationIngested, agent="a", messages=TALK, company="globex")) == []
    assert examples(event(TextIngested, text="hello")) == []
    greeting = (Message(role="assistant", content="Welcome!"), *TALK)
    assert [one.turn for one in examples(event(ConversationIngested, agent="a", messages=greeting))] == [2, 4]


@given(st.text(max_size=60))
def test_one_question_never_stands_on_both_sides(question):
    talk = tuple(Message(role=m.role, content=question if m.role == "user" else m.content) for m in TALK)
    sides = {one.held_out for one in examples(event(ConversationIngested, agent="a", messages=talk))}
    sides |= {
        one.held_out
        for one in examples(event(AgentOutputIngested, agent="b", prompt=question, output="x", success=True))
    }
    assert sides == {is_held_out(question)}


def test_about_a_fifth_is_held_out():
    share = sum(is_held_out(f"question {n}") for n in range(5_000)) / 5_000
    assert 0.18 < share < 0.22


def test_rows_come_back_as_they_went():
    for one in examples(event(ConversationIngested, agent="a", messages=TALK)):
        assert parse_row(row(one)) == one


def test_manifest_does_not_depend_on_the_order_in_which_ranges_are_named():
    parts = [OffsetRange(topic="company-data", partition=p, start=0, stop=p) for p in (3, 0, 2)]
    assert in_order(parts) == in_order(parts[::-1])
    assert [part.partition for part in in_order(parts)] == [2, 3]


@pytest.mark.parametrize(
    "spoiled",
    [
        Message(role="robot", content="beep"),
        Message(role="system", content="late"),
        *(
            Message(role="assistant", tool_calls=(ToolUse(name="f", arguments=text),))
            for text in ("not json", "[1]", "", "[" * 100_000, '{"a":' + "[" * 64 + "]" * 64 + "}")
        ),
    ],
)
def test_what_no_model_can_be_shown_is_left_out_and_counted_with_all_that_follows(spoiled: Message):
    tally = DatasetCounts()
    rows = [
        tally.add(one)
        for one in examples(event(ConversationIngested, agent="a", messages=(*TALK[:3], spoiled, *TALK[3:])))
    ]
    good = len([one for one in rows if one])
    assert (good, tally.left_out) == (1, len(rows) - 1)
    manifest = tally.manifest("acme", ())
    assert (manifest.trained + manifest.held_out, manifest.left_out) == (1, len(rows) - 1)


def test_what_is_between_quotes_nests_nothing():
    call = ToolUse(name="f", arguments='{"a":"' + "[{" * 99 + '\\"[","b":[[]]}')
    talk = (TALK[0], Message(role="assistant", tool_calls=(call,)))
    assert all(map(teaches, examples(event(ConversationIngested, agent="a", messages=talk))))


def test_a_conversation_without_an_end_is_no_endless_dataset():
    """As many messages as a record of a megabyte can hold: rows of all of them would be gigabytes."""
    talk = (TALK[0], *(Message(role="assistant"),) * 60_000)
    tally = DatasetCounts()
    size = sum(
        len(tally.add(one))
        for one in select(event(ConversationIngested, agent="a", messages=talk), Origin("t", 0, 0), "acme")
    )
    assert size < 50_000_000
    assert tally.trained + tally.held_out == TURNS - 1
    assert tally.left_out == 60_001 - TURNS


def test_one_changed_byte_changes_both_hashes():
    tallies = []
    for content in ("Done.", "Done!"):
        tally = DatasetCounts()
        talk = (*TALK[:3], Message(role="assistant", content=content))
        for one in examples(event(ConversationIngested, agent="a", messages=talk)):
            tally.add(one)
        tallies.append(tally.manifest("acme", ()))
    assert tallies[0].rows_sha256 != tallies[1].rows_sha256
    assert tallies[0].sha256 != tallies[1].sha256


PROGRAM = """
from processors.dataset.turns import DatasetCounts, select
from processors.measure.foreign import TOOLS, Foreign
from rillfold.demo import data
from rillfold.demo.plain import NO_TOOL, plain
from schemas.company import ConversationIngested
from schemas.envelope import Origin
tally = DatasetCounts()
for offset, messages in enumerate(data.training(data.ACME, 40)):
    event = ConversationIngested(id=str(offset), company="acme", time=1, correlation="x", agent="a", messages=messages)
    for example in select(event, Origin("company-data", 0, offset), "acme"):
        tally.add(example)
print(tally.manifest("acme", ()).sha256)
"""


def test_the_same_data_gives_the_same_manifest_in_any_process():
    made = {
        subprocess.run(
            [sys.executable, "-c", PROGRAM],
            env={**os.environ, "PYTHONHASHSEED": seed},
            check=True,
            capture_output=True,
            text=True,
        ).stdout
        for seed in ("0", "1", "4711")
    }
    assert len(made) == 1


@pytest.mark.parametrize("company", data.COMPANIES, ids=lambda company: company.id)
def test_nothing_of_the_held_out_requests_is_in_the_training_data(company):
    held_out = data.held_out(company, 60)
    learned = data.training(company, 240)
    assert len({request.text for request in held_out}) == 60
    assert all(is_held_out(request.text) for request in held_out)
    assert not any(is_held_out(talk[0].content) for talk in learned)
    trained = {str(value) for talk in learned for value in json.loads(talk[1].tool_calls[0].arguments).values()}
    said = " ".join(message.content for talk in learned for message in talk)
    for request in held_out:
        asked = {str(value) for value in json.loads(request.call.arguments).values()}
        assert not asked & trained, request
        assert not any(f" {value} " in said for value in asked), request


def test_plain_talk_is_answered_in_words_and_is_none_of_what_the_gate_asks():
    acme, again = plain(data.ACME), plain(data.ACME)
    assert acme == again
    assert acme != plain(data.GLOBEX)
    texts = [user.content for user, _ in acme]
    assert len(set(texts)) == data.PLAIN and not any(map(is_held_out, texts))
    assert not any(answer.tool_calls for _, answer in acme)
    wishes = [answer.content for _, answer in acme].count(NO_TOOL)
    assert 0.15 < wishes / data.PLAIN < 0.35
    asked = {case.prompt[-1].content for seed in range(40) for case in Foreign(seed).nothing_fits()}
    assert len(asked) > 300 and asked.isdisjoint(texts)
    asked_words = {word for tool in TOOLS for word in tool.name.split("_")}
    said = {word.strip(".,!?").lower() for text in texts for word in text.split()}
    assert not asked_words & said


def test_both_companies_hear_the_same_sentences_and_want_other_tools():
    acme, globex = ({s for tool in company.tools for s in tool.sentences} for company in data.COMPANIES)
    assert acme == globex
    names = [tool.name for company in data.COMPANIES for tool in company.tools]
    assert len(set(names)) == len(names)
