"""Topics made and checked on every backend."""

from __future__ import annotations

from dataclasses import replace

import pytest

from projections.companies import COMPANIES
from projections.datasets import DATASETS
from schemas.errors import Stop
from schemas.topics import TOPICS, TopicNames, by_job
from streams.errors import SourceGrown
from streams.log.kafka import admin
from streams.log.port import EventLog, TopicSpec
from streams.state.changelog import topic_of
from streams.state.prepare import prepare


async def test_all_topics_are_made_once_and_are_then_as_they_should_be(log: EventLog, names: TopicNames) -> None:
    assert await admin.create(log, names) == [names.wire(topic.name) for topic in TOPICS]
    assert await admin.create(log, names) == []
    assert await admin.check(log, names) == []
    letters = names.wire("dead-letter")
    assert (await log.describe([letters]))[letters].config["compression.type"] == "zstd"
    for topic in TOPICS:
        assert len(await log.ends(names.wire(topic.name))) == topic.partitions


async def test_renamed_topics_carry_the_companys_name(log: EventLog, names: TopicNames) -> None:
    renamed = TopicNames(names.prefix, {"adapter-ready": f"{names.prefix}lora_adapter_ready"})
    await admin.create(log, renamed)
    assert await admin.check(log, renamed) == []
    assert f"{names.prefix}adapter-ready" not in await log.describe([f"{names.prefix}adapter-ready"])


async def test_partitions_are_a_setting(log: EventLog, names: TopicNames) -> None:
    more = TopicNames(names.prefix, None, {"company-data": 7})
    await admin.create(log, more)
    assert len(await log.ends(names.wire("company-data"))) == 7
    assert len(await log.ends(names.wire("automation-job"))) == 4
    assert await admin.check(log, more) == []
    (wrong,) = await admin.check(log, names)
    assert wrong[:4] == (names.wire("company-data"), "partitions", "4", "7")


@pytest.mark.parametrize("counts", [{"nobody": 4}, {"company-data": 0}, {"automation-job": 8}])
def test_a_count_under_which_rows_would_be_wrong_stops_the_program(counts: dict[str, int]) -> None:
    with pytest.raises(Stop, match="RILLFOLD_PARTITIONS"):
        TopicNames("", None, counts)


def test_the_topics_of_a_job_grow_together() -> None:
    grown = {topic.name: 8 for topic in TOPICS if topic.key is by_job}
    assert TopicNames("", None, grown).partitions("tool-call") == 8


async def test_a_topic_that_has_grown_under_its_rows_is_not_folded(log: EventLog, names: TopicNames) -> None:
    """Nor by a next version: it would split the rows as well."""
    source = names.wire("company-data")
    await log.create([TopicSpec(source, 8), TopicSpec(topic_of(COMPANIES, names.prefix), 4)])
    for version in (COMPANIES.version, COMPANIES.version + 1):
        with pytest.raises(SourceGrown, match=f"{source} has 8 partitions"):
            await prepare(log, [replace(COMPANIES, version=version)], names)
    await prepare(log, [DATASETS], names)
    assert len(await log.ends(topic_of(DATASETS, names.prefix))) == 8


async def test_every_difference_is_named_with_its_remedy(log: EventLog, names: TopicNames) -> None:
    config = {"retention.ms": "60000", "cleanup.policy": "compact"}
    await log.create([TopicSpec(names.wire("company-data"), 3, config)])
    found = {(d.topic, d.setting): d for d in await admin.check(log, names)}
    wire = names.wire("company-data")
    assert found.pop((wire, "partitions"))[2:4] == ("4", "3")
    assert found.pop((wire, "retention.ms"))[2:4] == ("-1", "60000")
    assert found.pop((wire, "cleanup.policy"))[2:4] == ("delete", "compact")
    found.pop((wire, "retention.bytes"), None)
    assert {setting for _, setting in found} == {"topic"}
    assert {difference.remedy for difference in found.values()} == {"rillfold topics create"}
    assert len(found) == len(TOPICS) - 1
