"""What the training benchmark measures, and what its contestants are given."""

from __future__ import annotations

import pytest

from bench.part import wanted
from bench.train.goals import AT_LEAST, AT_MOST
from bench.train.run import PARTS
from bench.train.spoilt import SHARE, told
from bench.train.trainer_peer import collated, labelled
from processors.dataset.turns import is_held_out
from rillfold.demo import data
from schemas.company import ConversationIngested, FeedbackGiven
from schemas.tools import ToolReturned


def test_every_figure_with_something_to_reach_is_measured() -> None:
    keys = {key for part in PARTS for key in part.keys}
    assert (AT_LEAST.keys() | AT_MOST.keys()) <= keys
    assert list(wanted(PARTS, ["step", "trainer_memory"]).values()) == [
        ["trainer_time", "trainer_time_2", "trainer_memory"]
    ]
    with pytest.raises(SystemExit, match="No part nothing"):
        wanted(PARTS, ["nothing"])


def test_the_peer_learns_at_answers_alone_and_pads_behind_them() -> None:
    texts = [[[5, 6, 7, 8], [[2, 4]], "a"], [[5, 9], [[1, 2]], "b"]]
    rows = collated(labelled(texts))
    assert rows["input_ids"].tolist() == [[5, 9, 0, 0], [5, 6, 7, 8]]
    assert rows["labels"].tolist() == [[-100, 9, -100, -100], [-100, -100, 7, 8]]


def test_a_fifth_is_spoilt_and_each_of_it_is_spoken_of() -> None:
    count = 50
    events = told(data.ACME, count, "issue_refund", "amount")
    talks = [event for event in events if isinstance(event, ConversationIngested)]
    right = data.training(data.ACME, count)
    spoilt = {talk.id for talk, was in zip(talks, right, strict=True) if talk.messages[1] != was[1]}
    corrected = {event.about: event.correction for event in events if isinstance(event, FeedbackGiven)}
    refused = {event.job for event in events if isinstance(event, ToolReturned) and not event.ok}
    assert len(spoilt) == count // SHARE == len(corrected) + len(refused)
    stories = {talk.id: talk.correlation for talk in talks}
    assert {stories[each] for each in spoilt - corrected.keys()} == refused
    for about, correction in corrected.items():
        assert correction == right[int(about.rpartition("-")[2])][1]
    assert not any(is_held_out(talk.messages[0].content) for talk in talks)
