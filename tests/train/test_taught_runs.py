"""Runs that learn by an application's rule: the manifest names it, and a worker without it refuses the run by name."""

from __future__ import annotations

import json

from processors.dataset.lessons import Talk
from processors.dataset.taught import Rule
from schemas.company import Message, RecordIngested
from schemas.envelope import Event
from schemas.topics import TopicNames
from schemas.training import TrainingAccepted, TrainingCompleted, TrainingRefused
from streams.log.memory import MemoryLog
from tests.support.made import train_here
from tests.train.test_trainer import Office, ended, of

TAUGHT = {"rank": 2, "steps": 2, "batch": 2, "warmup": 1, "evaluation_rows": 0}
TAUGHT |= {"select": {"rules": ["notes.v1"], "agents": ["notes"]}}


def notes(event: Event) -> list[Talk]:
    assert isinstance(event, RecordIngested)
    said = Message(role="user", content=event.kind), Message(role="assistant", content=event.data)
    return [Talk(agent="notes", messages=said)]


RULES = {"notes.v1": Rule("notes.v1", "a" * 64, frozenset({RecordIngested}), ("company-data",), "notes.py:1", notes)}


async def test_a_run_learns_by_the_rule_that_it_names_the_same_again(tmp_path, tiny_base):
    office = await Office(MemoryLog(), TopicNames(), tmp_path, tiny_base).open()
    envelopes = ({"id": f"n{n}", "company": "acme", "time": 1, "correlation": "n"} for n in range(20))
    await office.append(*(RecordIngested(**each, kind=f"note {each['id']}", data="{}") for each in envelopes))
    await office.append(office.request("r1", settings=json.dumps(TAUGHT)))
    said = await office.until(office.trainer(train=train_here, rules=RULES), ended("r1"))
    (accepted,) = of(said, TrainingAccepted)
    manifest = json.loads((tmp_path / "store" / "manifests" / "sha256" / f"{accepted.manifest}.json").read_bytes())
    assert manifest["rules"] == [{"name": "notes.v1", "sha256": "a" * 64, "events": 20, "failed": 0}]
    assert manifest["trained"] + manifest["held_out"] == 20

    again = {"settings": json.dumps(TAUGHT), "ranges": accepted.ranges}
    await office.append(office.request("again", **again))
    said = await office.until(office.trainer(name="two", train=train_here, rules=RULES), ended("again"))
    assert len({event.sha256 for event in of(said, TrainingCompleted)}) == 1

    await office.append(office.request("elsewhere", **again))
    said = await office.until(office.trainer(name="three", train=train_here), ended("elsewhere"))
    (refused,) = of(said, TrainingRefused)
    assert (refused.run, refused.reason) == ("elsewhere", "unknown_rule") and "'notes.v1'" in refused.detail
