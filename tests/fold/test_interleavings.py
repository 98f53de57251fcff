"""Topics have no order between them: whichever is read first, and however often, a row ends the same."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from functools import reduce
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from projections.catalog import PROJECTIONS
from projections.jobs import effect_id
from projections.projection import Projection
from schemas.codec.codec import decode
from schemas.envelope import Event, Origin
from schemas.inference import InferenceCompleted, InferenceFailed
from schemas.jobs import JobFailed, JobRequested, JobWithdrawn
from schemas.tools import ToolReturned
from tests.upgrade.record import HISTORIES, Line, lines

SEVERAL = [projection for projection in PROJECTIONS.values() if len(projection.topics) > 1]
SEEDS = st.integers(0, 2**32)
Streams = dict[str, list[Event]]


def stories(projection: Projection, history: Sequence[Line]) -> dict[str, Streams]:
    """Row -> topic -> its events, in the topic's order."""
    found: dict[str, Streams] = defaultdict(lambda: defaultdict(list))
    for n, record in enumerate(history):
        event = decode(record.value, Origin(record.topic, record.partition, n), record.timestamp, record.headers)
        if isinstance(event, Event) and record.topic in projection.topics and (key := projection.key(event)):
            found[key][record.topic].append(event)
    return {key: streams for key, streams in found.items() if len(streams) > 1}


def interleaved(chance: Random, streams: Streams) -> list[Event]:
    """Each topic in its own order; now and then some of it once more, as after a crash."""
    left, mixed = {topic: list(events) for topic, events in streams.items()}, []
    while any(left.values()):
        topic = chance.choice([topic for topic in left if left[topic]])
        mixed.append(left[topic].pop(0))
        if chance.random() < 0.1:
            done = len(streams[topic]) - len(left[topic])
            left[topic][:0] = streams[topic][chance.randrange(done) : done]
    return mixed


def agree(projection: Projection, key: str, streams: Streams, seed: int) -> None:
    in_turn = [event for topic in projection.topics for event in streams[topic]]
    should = reduce(projection.fold, in_turn, projection.initial(key))
    assert reduce(projection.fold, interleaved(Random(seed), streams), projection.initial(key)) == should


@pytest.mark.parametrize("projection", SEVERAL, ids=lambda projection: projection.name)
@given(row=st.integers(0, 10_000), seed=SEEDS)
def test_any_interleaving_of_real_stories_gives_the_same_row(projection: Projection, row: int, seed: int):
    rows = STORIES[projection.name]
    key = sorted(rows)[row % len(rows)]
    agree(projection, key, rows[key], seed)


STORIES = {p.name: stories(p, lines(HISTORIES / "jobs.jsonl")) for p in SEVERAL}


def test_there_are_stories_to_interleave():
    assert all(len(rows) > 20 for rows in STORIES.values())


@given(seed=SEEDS, answers=st.permutations(range(5)), replies=st.permutations(range(3)), ends=st.permutations(range(3)))
def test_any_interleaving_of_hostile_replies_gives_the_same_job(
    seed: int, answers: list[int], replies: list[int], ends: list[int]
):
    """Two requests of one name, several replies to one effect, replies of the wrong kind, an end out of the blue."""
    first, second, third = effect_id("r0"), effect_id("a0"), effect_id("t0")
    text = {"job": "j", "text": "t", "finish_reason": "stop", "model": "m", "prompt_tokens": 1, "completion_tokens": 1}
    answered: list[Event] = [
        *(InferenceCompleted(**own(f"a{n}"), **text, request=to) for n, to in enumerate((first, first, second, third))),
        InferenceFailed(**own("f0"), request=first, job="j", reason="away"),
    ]
    returned: list[Event] = [
        ToolReturned(**own(f"t{n}"), call=to, job="j", tool="t", ok=ok)
        for n, (to, ok) in enumerate(((second, True), (second, False), (first, True)))
    ]
    requested: list[Event] = [JobRequested(**own(f"r{n}"), job="j", task=f"t{n}") for n in range(2)]
    ended: list[Event] = [
        JobFailed(**own("e0"), job="j", reason="cancelled"),
        JobWithdrawn(**own("e1"), job="j", reason="a slip"),
    ]
    streams = {
        # 2: nothing more is said of its end.
        "automation-job": requested + [ended[n] for n in ends[: ends.index(2)]],
        "inference-result": [answered[n] for n in answers],
        "tool-result": [returned[n] for n in replies],
    }
    agree(PROJECTIONS["company_automation_jobs"], "acme/j", streams, seed)


def own(id_: str) -> dict[str, object]:
    return {"id": id_, "company": "acme", "time": 1_700_000_000_000_000, "correlation": "r0"}
