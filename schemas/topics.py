"""The single truth about topics: name, key, partitions, retention, and which events live there."""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property

from schemas import adapters, company, inference, jobs, memory, rejected, tools, training
from schemas.envelope import Event
from schemas.errors import Stop

KeyRule = Callable[[Event], str]


def by_company(event: Event) -> str:
    """One company's events keep their order."""
    return event.company


def by_entity(event: Event) -> str:
    """A big company spreads over partitions; each of its entities keeps its order."""
    entity = getattr(event, "entity", None)
    return f"{event.company}/{entity}" if entity else event.company


def by_job(event: Event) -> str:
    """All events of one job meet in one partition number, on every topic that uses this rule."""
    job = getattr(event, "job", None) or getattr(event, "request", None) or event.id
    return f"{event.company}/{job}"


def by_source(event: Event) -> str:
    """Rejected records keep the order of the partition that they came from."""
    assert isinstance(event, rejected.RecordRejected | rejected.RecordRedriven)
    return f"{event.topic}/{event.partition}"


@dataclass(frozen=True)
class Topic:
    name: str
    events: tuple[type[Event], ...]
    key: KeyRule
    partitions: int = 4
    retention_ms: int = -1
    """-1: for ever. What is replayed must not expire."""
    max_bytes: int | None = None
    """The largest record batch. None: the broker's own limit."""
    packed: bool = False
    """The broker packs what it keeps: what we write of records that came packed would fill its disk otherwise."""
    compact: bool = False
    """Kafka keeps the last record of each key. Never ours: a later fact does not undo an earlier one."""

    @property
    def keeps_all(self) -> bool:
        """What may be gone tomorrow is folded and learned by nobody: a fresh fold would come to something else."""
        return self.retention_ms < 0 and not self.compact


TOPICS: tuple[Topic, ...] = (
    Topic(
        "company-data",
        (
            company.CompanyRegistered,
            company.TextIngested,
            company.RecordIngested,
            company.DocumentIngested,
            company.ConversationIngested,
            company.AgentOutputIngested,
            company.FeedbackGiven,
            company.ToolRegistered,
            company.ToolRevoked,
            company.FilePart,
            company.FileUploaded,
            company.FileDeleted,
            memory.MemoryNoted,
            memory.MemoryForgotten,
        ),
        key=by_entity,
    ),
    Topic(
        "training-request",
        (
            training.TrainingRequested,
            training.TrainingAccepted,
            training.TrainingRefused,
            training.TrainingProgressed,
            training.TrainingCompleted,
            training.TrainingFailed,
            training.TrainingWithdrawn,
        ),
        key=by_company,
    ),
    Topic("adapter-ready", (adapters.AdapterJudged, adapters.AdapterReady, adapters.RolloutDecided), key=by_company),
    Topic("adapter-request", (adapters.AdapterRequested,), key=by_company),
    Topic(
        "automation-job",
        (jobs.JobRequested, jobs.JobStepped, jobs.JobCompleted, jobs.JobFailed, jobs.JobWithdrawn),
        key=by_job,
    ),
    Topic("inference-request", (inference.InferenceRequested,), key=by_job),
    Topic("inference-result", (inference.InferenceCompleted, inference.InferenceFailed), key=by_job),
    Topic("tool-call", (tools.ToolCallProposed,), key=by_job),
    Topic("tool-result", (tools.ToolReturned,), key=by_job),
    # Room for what no other topic had room for: the refused value, and what is said about it.
    Topic(
        "dead-letter",
        (rejected.RecordRejected, rejected.RecordRedriven),
        key=by_source,
        max_bytes=16 << 20,
        packed=True,
    ),
)

BY_NAME: dict[str, Topic] = {topic.name: topic for topic in TOPICS}
"""Applications add theirs at the edge, as they add events."""
TOPIC_OF: dict[type[Event], Topic] = {event: topic for topic in TOPICS for event in topic.events}
"""Applications add theirs at the edge: `schemas.codec.additions`."""


def events_on(topic: Topic) -> tuple[type[Event], ...]:
    """Those of applications too."""
    return tuple(event for event, on in TOPIC_OF.items() if on is topic)


WISHES: tuple[type[Event], ...] = (
    *BY_NAME["company-data"].events,
    training.TrainingRequested,
    training.TrainingWithdrawn,
    jobs.JobRequested,
    jobs.JobWithdrawn,
    inference.InferenceRequested,
    adapters.AdapterRequested,
)
"""What a company says itself, of our events. Everything else is said by workers, about what they did."""


def company_says(event: type[Event]) -> bool:
    """One of its wishes; an application's are its own, too."""
    topic = TOPIC_OF.get(event)
    return topic is not None and (topic.name == "company-data" or event in WISHES or topic not in TOPICS)


LEGAL_NAME = re.compile(r"[A-Za-z0-9._-]{1,249}")
"""Kafka's own rule."""


@dataclass(frozen=True)
class TopicNames:
    """How a company calls our topics: a prefix for all, and a map for single ones, which the prefix leaves alone.

    And how many partitions each has here: what was made with a count keeps it.
    """

    prefix: str = ""
    renamed: Mapping[str, str] | None = None
    counts: Mapping[str, int] | None = None

    def __post_init__(self) -> None:
        self._check_counts()
        if unknown := sorted((self.renamed or {}).keys() - BY_NAME.keys()):
            raise Stop(f"The topic map names {', '.join(unknown)}. Our topics are {', '.join(BY_NAME)}.")
        if illegal := [wire for wire in map(self.wire, BY_NAME) if not LEGAL_NAME.fullmatch(wire)]:
            raise Stop(f"Kafka takes no topic named {illegal[0]!r}: 1 to 249 letters, digits, dots, _ or -.")
        if len(self._ours) < len(BY_NAME):
            raise Stop(f"Two topics would have one name in {dict(self.renamed or {})}: give each its own.")

    def _check_counts(self) -> None:
        if unknown := sorted((self.counts or {}).keys() - BY_NAME.keys()):
            raise Stop(f"RILLFOLD_PARTITIONS names {', '.join(unknown)}. Our topics are {', '.join(BY_NAME)}.")
        if small := [name for name in self.counts or {} if self.partitions(name) < 1]:
            raise Stop(f"RILLFOLD_PARTITIONS gives {small[0]} {self.partitions(small[0])} partitions: at least 1.")
        told = {topic.name: self.partitions(topic.name) for topic in TOPICS if topic.key is by_job}
        if len(set(told.values())) > 1:
            raise Stop(
                f"The events of a job stand in one partition number on every topic that carries them, so "
                f"RILLFOLD_PARTITIONS gives those topics one count; now they would have {told}."
            )

    def partitions(self, name: str) -> int:
        return (self.counts or {}).get(name, BY_NAME[name].partitions)

    def wire(self, name: str) -> str:
        return (self.renamed or {}).get(name) or f"{self.prefix}{name}"

    def ours(self, wire: str) -> str:
        """Raises KeyError for a topic that is not ours."""
        return self._ours[wire]

    def events_on(self, wire: str) -> frozenset[type[Event]]:
        """Those that belong there: any other is said in the wrong place, and by whom nobody knows."""
        return self._events.get(wire, frozenset())

    @cached_property
    def _events(self) -> Mapping[str, frozenset[type[Event]]]:
        wires = {topic: self.wire(topic.name) for topic in BY_NAME.values()}
        return {wire: frozenset(events_on(topic)) for topic, wire in wires.items()}

    @cached_property
    def _ours(self) -> Mapping[str, str]:
        return {self.wire(name): name for name in BY_NAME}
