"""Topics made and checked on every backend."""

from __future__ import annotations

from schemas.topics import TOPICS, TopicNames
from streams.log.kafka import admin
from streams.log.port import EventLog, TopicSpec


async def test_all_topics_are_made_once_and_are_then_as_they_should_be(log: EventLog, names: TopicNames) -> None:
    assert await admin.create(log, names) == [names.wire(topic.name) for topic in TOPICS]
    assert await admin.create(log, names) == []
    assert await admin.check(log, names) == []
    for topic in TOPICS:
        assert len(await log.ends(names.wire(topic.name))) == topic.partitions


async def test_renamed_topics_carry_the_companys_name(log: EventLog, names: TopicNames) -> None:
    renamed = TopicNames(names.prefix, {"adapter-ready": f"{names.prefix}lora_adapter_ready"})
    await admin.create(log, renamed)
    assert await admin.check(log, renamed) == []
    assert f"{names.prefix}adapter-ready" not in await log.describe([f"{names.prefix}adapter-ready"])


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
