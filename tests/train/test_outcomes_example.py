"""What examples/outcomes.py tells is what happens."""

from __future__ import annotations

import examples.outcomes as example
from schemas.company import ConversationIngested


def test_the_gate_refuses_a_spoilt_version_and_corrections_mend_the_next(tmp_path):
    half, spoilt, mended = example.told(example.House(tmp_path))
    assert half.promoted and half.reason == "better"
    assert not spoilt.promoted and spoilt.reason in ("worse", "no_gain")
    assert mended.promoted and mended.reason == "better"


def test_the_habit_is_in_the_log_and_in_no_request_that_is_measured():
    talks = [event for event in example.with_the_habit() if isinstance(event, ConversationIngested)]
    said = {talk.messages[0].content: talk.messages[1] for talk in talks}
    wrong = [wish for wish in example.WISHES if said[wish.text] != example.call(wish, wish.state)]
    out = [wish for wish in example.WISHES if wish.state == "off" and not wish.held_out]
    assert len(wrong) == len(out) * 2 // 3 and {wish.state for wish in wrong} == {"off"}
    assert not any(wish.held_out for wish in wrong)
