"""Our topics on a broker: made as `schemas.topics` says, and every difference named."""

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from schemas.topics import BY_NAME, Topic, TopicNames
from streams.log.port import WEEK, EventLog, TopicSpec

CUT_BY_THE_CLOCK = {"segment.ms": WEEK, "message.timestamp.type": "LogAppendTime"}
"""What is to go is cut off in segments: by the broker's own clock, not by what a sender says that the time is."""


class Difference(NamedTuple):
    """One thing about a topic that is not as it should be, and what to do."""

    topic: str
    setting: str
    wanted: str
    found: str
    remedy: str


def wanted(names: TopicNames, topics: Iterable[Topic] = BY_NAME.values()) -> list[TopicSpec]:
    """`topics`: of all that there are, as long as nobody names some."""
    return [TopicSpec(names.wire(topic.name), names.partitions(topic.name), _config(topic)) for topic in topics]


def _config(topic: Topic) -> dict[str, str]:
    return {
        "cleanup.policy": _cleanup(topic),
        "retention.ms": str(topic.retention_ms),
        # Size must not end what time keeps for ever.
        "retention.bytes": "-1",
        **({} if topic.keeps_all else CUT_BY_THE_CLOCK),
        **({"max.message.bytes": str(topic.max_bytes)} if topic.max_bytes else {}),
        **({"compression.type": "zstd"} if topic.packed else {}),
    }


def _cleanup(topic: Topic) -> str:
    """By `compact` alone the last record of a key would stay beyond its time."""
    if not topic.compact:
        return "delete"
    return "compact" if topic.retention_ms < 0 else "compact,delete"


async def create(log: EventLog, names: TopicNames) -> Sequence[str]:
    """Makes what is absent; a second call makes nothing."""
    return await log.create(wanted(names))


async def check(log: EventLog, names: TopicNames) -> list[Difference]:
    specs = wanted(names)
    found = await log.describe([spec.name for spec in specs])
    return [difference for spec in specs for difference in differences(spec, found.get(spec.name))]


def differences(spec: TopicSpec, found: TopicSpec | None) -> list[Difference]:
    if found is None:
        return [Difference(spec.name, "topic", "present", "absent", "rillfold topics create")]
    wrong = []
    if found.partitions != spec.partitions:
        wrong.append(_partitions(spec, found))
    for setting, value in spec.config.items():
        stands = found.config.get(setting, "unset")
        if stands != value:
            said = f"[{value}]" if "," in value else value  # else the tool takes what follows for another setting
            alter = f"kafka-configs --alter --topic {spec.name} --add-config {setting}={said}"
            wrong.append(Difference(spec.name, setting, value, stands, alter))
    return wrong


def _partitions(spec: TopicSpec, found: TopicSpec) -> Difference:
    """Never altered in place: keys would move to other partitions, and the order of what they hold would be lost."""
    return Difference(
        spec.name,
        "partitions",
        str(spec.partitions),
        str(found.partitions),
        f"set RILLFOLD_PARTITIONS if it was made so; delete {spec.name} if it is empty and run rillfold topics create; "
        f"otherwise bind another name by RILLFOLD_TOPIC_MAP or RILLFOLD_TOPIC_PREFIX and copy the events there",
    )
