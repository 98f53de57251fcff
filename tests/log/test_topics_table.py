"""The topic table: its page, its names, its keys."""

from __future__ import annotations

from pathlib import Path

import pytest

from schemas import topics
from schemas.codec.catalog import kind_of
from schemas.company import RecordIngested, ToolRegistered, ToolRevoked
from schemas.errors import Stop
from schemas.inference import InferenceFailed
from schemas.jobs import JobFailed, JobRequested
from schemas.rejected import RecordRejected
from schemas.topics import BY_NAME, TOPIC_OF, TOPICS, TopicNames

PAGE = Path(__file__).parents[2] / "docs" / "topics.md"
KEYS = {"company": topics.by_company, "entity": topics.by_entity, "job": topics.by_job, "source": topics.by_source}
FIRST = {"id": "e1", "company": "acme_corp", "time": 1, "correlation": "e1"}


def rows() -> dict[str, list[str]]:
    table = [line.strip("| ").split(" | ") for line in PAGE.read_text().splitlines() if line.startswith("| `")]
    return {row[0].strip("`"): row for row in table if len(row) == 7}


def test_the_page_says_what_the_table_says() -> None:
    assert list(rows()) == list(BY_NAME)
    for name, topic in BY_NAME.items():
        _, key, partitions, retention, cleanup, events, why = rows()[name]
        assert KEYS[key] is topic.key, name
        assert int(partitions) == topic.partitions, name
        assert (retention == "for ever") == (topic.retention_ms == -1), name
        assert cleanup == "delete", name
        assert events.replace("`", "").split() == [kind_of(event).type for event in topic.events], name
        assert why, name


def test_an_event_lives_on_one_topic() -> None:
    assert sum(len(topic.events) for topic in TOPICS) == len(TOPIC_OF)


def test_an_entity_spreads_a_company_and_registry_facts_keep_its_order() -> None:
    record = RecordIngested(**FIRST, entity="order-17", kind="order", data="{}")
    assert TOPIC_OF[RecordIngested].key(record) == "acme_corp/order-17"
    assert topics.by_entity(RecordIngested(**FIRST, kind="order", data="{}")) == "acme_corp"
    assert topics.by_entity(ToolRevoked(**FIRST, name="weather")) == "acme_corp"
    assert "entity" not in ToolRegistered.__struct_fields__


def test_a_job_has_one_key_on_every_topic_that_carries_it() -> None:
    by_job = [topic for topic in TOPICS if topic.key is topics.by_job]
    assert len({topic.partitions for topic in by_job}) == 1
    assert topics.by_job(JobRequested(**FIRST, job="j1", task="t")) == "acme_corp/j1"
    assert topics.by_job(JobFailed(**FIRST, job="j1", reason="r")) == "acme_corp/j1"
    assert topics.by_job(InferenceFailed(**FIRST, request="r1", reason="r")) == "acme_corp/r1"


def test_refused_records_are_keyed_by_where_they_stood() -> None:
    rejected = RecordRejected(**FIRST, topic="company-data", partition=3, offset=9, timestamp=0, reason="empty")
    assert topics.by_source(rejected) == "company-data/3"


def test_a_prefix_goes_before_all_names_and_a_map_replaces_single_ones() -> None:
    theirs = {
        "training-request": "lora_training_requests",
        "adapter-ready": "lora_adapter_ready",
        "adapter-request": "lora_adapter_requests",
        "automation-job": "company_automation_jobs",
    }
    names = TopicNames("acme.", theirs)
    assert {name: names.wire(name) for name in theirs} == theirs
    assert names.wire("company-data") == "acme.company-data"
    assert {names.ours(names.wire(name)) for name in BY_NAME} == set(BY_NAME)
    with pytest.raises(KeyError):
        names.ours("company-data")


@pytest.mark.parametrize(
    ("prefix", "renamed", "message"),
    [
        ("", {"company_data": "x"}, "The topic map names company_data. Our topics are company-data"),
        ("", {"company-data": "tool-call"}, "Two topics would have one name"),
        ("", {"company-data": "a b"}, "Kafka takes no topic named 'a b'"),
        ("ü", None, "Kafka takes no topic named 'ücompany-data'"),
        ("x" * 240, None, "Kafka takes no topic named"),
    ],
)
def test_names_that_cannot_be_stop(prefix: str, renamed: dict[str, str] | None, message: str) -> None:
    with pytest.raises(Stop, match=message):
        TopicNames(prefix, renamed)
