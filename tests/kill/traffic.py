"""What a seed puts into the log: events of many companies on every folded topic, repeats, poison, what was aborted."""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple
from uuid import UUID

import msgspec

from processors import gate
from processors.gate import Offer
from schemas.adapters import AdapterReady, RolloutDecided
from schemas.company import (
    AgentOutputIngested,
    CompanyRegistered,
    ConversationIngested,
    DocumentIngested,
    Message,
    RecordIngested,
    TextIngested,
    ToolAuth,
    ToolRegistered,
    ToolRevoked,
)
from schemas.envelope import Event
from schemas.inference import InferenceCompleted, InferenceFailed
from schemas.jobs import JobRequested, JobStepped
from schemas.memory import MemoryForgotten, MemoryNoted
from schemas.tools import ToolCallProposed, ToolReturned
from schemas.topics import TOPIC_OF, TopicNames
from schemas.training import TrainingAccepted, TrainingCompleted, TrainingFailed, TrainingProgressed, TrainingRequested
from streams.log.outgoing import to_outgoing
from streams.log.port import Outgoing

FOLDED = (
    "company-data",
    "training-request",
    "adapter-ready",
    "automation-job",
    "inference-result",
    "tool-call",
    "tool-result",
)
TOOLS = gate.canonical([Offer(name="refund", parameters={"properties": {"order": {"type": "string"}}})])
POISONED, REPEATED, AS_JSON = 0.01, 0.05, 0.03
LEARNED: Mapping[bytes, type[Event]] = {b"\x00\x00\x00\x00\x01": TextIngested, b"\x00\x00\x00\x00\x02": MemoryNoted}
"""What the registry comes to know, in this order, and how such events begin then."""
OWN_FRAME = 10
"""Bytes before the body of an event as we write it: two that mark it, eight of its schema."""
GREEDY, STEPS, QUOTES = "greedy", 12, '"' * 60_000
"""A company's job whose row is too large for a record batch from some step on: those its projection refuses."""
SERIAL = "poison"
"""A header by which a poisoned record is known again, whatever its bytes."""


class Burst(NamedTuple):
    """Records that are sent together: plain, or in a transaction that is committed or aborted."""

    how: str
    records: list[Outgoing]


@dataclass
class Ledger:
    """What was sent, so that the log itself can be held to it."""

    ids: set[str] = field(default_factory=set)
    poison: dict[str, Outgoing] = field(default_factory=dict)
    ghosts: set[str] = field(default_factory=set)
    framed: dict[bytes, str] = field(default_factory=dict)
    """Ids of events by their bytes under the registry's frame: refused where it did not know their schema yet."""
    stems: dict[bytes, bytes] = field(default_factory=dict)
    """What an event under such a frame begins with as we write it."""
    repeats: int = 0
    aborted: int = 0


class Traffic:
    """The same seed gives the same bursts."""

    def __init__(self, seed: int, count: int, names: TopicNames, framed: float = 0.0, greedy: bool = False) -> None:
        """`framed`: the share of records that only a registry makes readable. `greedy`: with jobs whose row is too
        large."""
        self._greedy = [count // 3, count * 2 // 3] if greedy else []
        self._rnd, self._count, self._names, self._share = random.Random(seed), count, names, framed
        self.ledger, self._made = Ledger(), 0
        self._recent: deque[Event] = deque(maxlen=200)
        self._runs: list[str] = []
        self._jobs: list[str] = []

    def bursts(self) -> Iterator[Burst]:
        left = self._count
        while left > 0:
            if self._greedy and left <= self._greedy[-1]:
                yield Burst("plain", self._too_much(f"job-{self._greedy.pop()}"))
            size = min(left, self._rnd.choice((20, 100, 400, 1_500)))
            how = self._rnd.choices(("plain", "committed", "aborted"), (70, 15, 15))[0]
            if how == "aborted":
                yield Burst(how, self._ghosts(size))
            else:
                yield Burst(how, [self._record() for _ in range(size)])
                left -= size

    def beyond(self) -> Iterator[Burst]:
        """For whoever needs more than all."""
        while True:
            yield Burst("plain", [self._record() for _ in range(100)])

    def closing(self) -> Burst:
        """A plain record at the end of every partition: nothing is left whose end is a transaction's marker."""
        records = []
        for partition in range(4):
            for make in (_text, _progressed, _ready, _stepped, _failed_question, _call, _returned):
                event = make(self, **self._envelope("closing"))
                self.ledger.ids.add(event.id)
                records.append(to_outgoing(event, self._names)._replace(partition=partition))
            if self._share:
                known = self._framed("closing")
                self.ledger.ids.add(self.ledger.framed[known.value or b""])
                records.append(known._replace(partition=partition))
        return Burst("plain", records)

    def _record(self) -> Outgoing:
        if self._rnd.random() < POISONED:
            return self._poison()
        if self._share and self._rnd.random() < self._share:
            return self._framed(f"company-{self._rnd.randrange(9)}")
        if self._recent and self._rnd.random() < REPEATED:
            self.ledger.repeats += 1
            event = self._rnd.choice(self._recent)
        else:
            event = self._event(f"company-{int(self._rnd.paretovariate(0.7)) % 60}")
            self._recent.append(event)
        self.ledger.ids.add(event.id)
        record = to_outgoing(event, self._names)
        if self._rnd.random() < AS_JSON:
            return record._replace(value=msgspec.json.encode(event))
        return record

    def _framed(self, company: str) -> Outgoing:
        """As a producer with the registry's serializer sends it."""
        make, frame = self._rnd.choice(list(zip((_text, _noted), LEARNED, strict=True)))
        event = make(self, **self._envelope(company))
        record = to_outgoing(event, self._names)
        own = record.value or b""
        self.ledger.stems[frame] = own[:OWN_FRAME]
        value = frame + own[OWN_FRAME:]
        self.ledger.framed[value] = event.id
        return record._replace(value=value)

    def _too_much(self, job: str) -> list[Outgoing]:
        steps = [
            JobStepped(**self._envelope(GREEDY), job=job, step=n, kind="x", detail=QUOTES if n < STEPS else "at last")
            for n in range(STEPS + 1)
        ]
        self.ledger.ids |= {step.id for step in steps}
        return [to_outgoing(step, self._names) for step in steps]

    def _ghosts(self, size: int) -> list[Outgoing]:
        """Nobody must ever see these; some of them are no events at all."""
        self.ledger.aborted += size
        records = []
        for _ in range(size):
            event = self._event(f"ghost-{self._rnd.randrange(9)}")
            self.ledger.ghosts.add(event.id)
            record = to_outgoing(event, self._names)
            records.append(record._replace(value=b"ghost") if self._rnd.random() < POISONED else record)
        return records

    def _event(self, company: str) -> Event:
        make = self._rnd.choices(*_KINDS)[0]
        event: Event = make(self, **self._envelope(company))
        return event

    def _envelope(self, company: str) -> dict[str, Any]:
        self._made += 1
        id_ = str(UUID(int=self._rnd.getrandbits(128)))
        return {"id": id_, "company": company, "time": 1_700_000_000_000_000 + self._made, "correlation": id_}

    def _poison(self) -> Outgoing:
        rnd, serial = self._rnd, str(len(self.ledger.poison))
        good = to_outgoing(self._event("company-0"), self._names)
        topic = self._names.wire(rnd.choice(FOLDED))
        value = rnd.choice(
            (
                None,
                b"",
                b"{",
                b"\xff\xfe" + rnd.randbytes(40),
                rnd.randbytes(rnd.choice((1, 9, 300, 60_000))) + b"\xff",
                b'{"type": "no.such", "company": "company-0"}',
                b'{"type": "text.ingested", "company": "", "text": 1}',
                b"\xc3\x01" + rnd.randbytes(8) + b"unknown schema",
                (good.value or b"")[:-1],
                (good.value or b"") + b"\x00",
            )
        )
        # aiokafka itself sends no record that has neither key nor value.
        key = rnd.choice((None if value is not None else b"", b"", b"\xff\x00", good.key))
        record = Outgoing(topic, key, value, ((SERIAL, serial.encode()), ("", b"\x00")))
        self.ledger.poison[serial] = record
        return record


def _entity(t: Traffic) -> str | None:
    return t._rnd.choice((None, *(f"entity-{n}" for n in range(20))))


def _text(t: Traffic, **e: Any) -> Event:
    return TextIngested(**e, entity=_entity(t), text=f"Größe {t._made} " * t._rnd.randrange(1, 9))


def _rec(t: Traffic, **e: Any) -> Event:
    return RecordIngested(**e, entity=_entity(t), kind="order", data=f'{{"n":{t._made}}}')


def _document(t: Traffic, **e: Any) -> Event:
    return DocumentIngested(**e, entity=_entity(t), uri=f"s3://bucket/{t._made}", media_type="text/plain")


def _conversation(t: Traffic, **e: Any) -> Event:
    turns = (Message(role="user", content=f"q{t._made}"), Message(role="assistant", content="a"))
    return ConversationIngested(**e, entity=_entity(t), agent="support", messages=turns)


def _output(t: Traffic, **e: Any) -> Event:
    good = t._rnd.random() < 0.6
    return AgentOutputIngested(**e, entity=_entity(t), agent="support", prompt="p", output=f"o{t._made}", success=good)


def _company(t: Traffic, **e: Any) -> Event:
    return CompanyRegistered(**e, name=f"Name {t._made}\t\\ \n'")


def _tool(t: Traffic, **e: Any) -> Event:
    return ToolRegistered(
        **e, name=f"tool-{t._rnd.randrange(5)}", description=f"does {t._made}", parameters="{}",
        endpoint="https://example.com", auth=ToolAuth(kind="none"),
    )  # fmt: skip


def _revoked(t: Traffic, **e: Any) -> Event:
    return ToolRevoked(**e, name=f"tool-{t._rnd.randrange(5)}", reason="old")


def _noted(t: Traffic, **e: Any) -> Event:
    return MemoryNoted(**e, memory=f"m-{t._rnd.randrange(9)}", text=f"note {t._made}")


def _forgotten(t: Traffic, **e: Any) -> Event:
    return MemoryForgotten(**e, memory=f"m-{t._rnd.randrange(9)}", reason="old")


def _run(t: Traffic, **e: Any) -> Event:
    t._runs = [*t._runs[-50:], e["id"]]
    return TrainingRequested(**e, base_model="base")


def _accepted(t: Traffic, **e: Any) -> Event:
    worker, run = f"w{t._rnd.randrange(3)}", _known(t, t._runs)
    return TrainingAccepted(**e, run=run, worker=worker, ranges=(), manifest="m", examples=9)


def _progressed(t: Traffic, **e: Any) -> Event:
    return TrainingProgressed(**e, run=_known(t, t._runs), phase="train", step=t._rnd.randrange(99), steps=99, loss=0.5)


def _trained(t: Traffic, **e: Any) -> Event:
    run, adapter = _known(t, t._runs), f"{e['company']}/default"
    if t._rnd.random() < 0.3:
        return TrainingFailed(**e, run=run, reason="crashed")
    return TrainingCompleted(**e, run=run, adapter=adapter, sha256="0" * 64, seconds=1.5)


def _ready(t: Traffic, **e: Any) -> Event:
    return AdapterReady(
        **e, adapter=f"{e['company']}/role-{t._rnd.randrange(3)}", adapter_version=t._rnd.randrange(1, 40), run="run",
        sha256=f"{t._made:064x}", uri="file:///x", method="lora", rank=8, alpha=16.0, base_model="base",
        base_sha256="0" * 64, manifest="0" * 64, ranges=(), seed=t._made, identity="{}",
    )  # fmt: skip


def _decided(t: Traffic, **e: Any) -> Event:
    adapter, version = f"{e['company']}/role-{t._rnd.randrange(3)}", t._rnd.randrange(1, 4)
    return RolloutDecided(**e, adapter=adapter, adapter_version=version, percent=t._rnd.choice((0, 1, 10, 50, 100)))


def _job(t: Traffic, **e: Any) -> Event:
    """Now and then a second request under the name of a job that there is."""
    job = _known(t, t._jobs) if t._rnd.random() < 0.03 else f"job-{t._made}"
    t._jobs = [*t._jobs[-50:], job]
    session = t._rnd.choice((None, "morning", "evening"))
    return JobRequested(**e, job=job, task=f"Refund order A{t._made}", tools=TOOLS, session=session)


def _stepped(t: Traffic, **e: Any) -> Event:
    return JobStepped(**e, job=f"nobody-{t._made}", step=1, kind="answered")


def _answer(t: Traffic, **e: Any) -> Event:
    return InferenceCompleted(
        **e, request=f"r{t._made}", text="t", finish_reason="stop", adapter=t._rnd.choice((None, "x/y")),
        model="m", prompt_tokens=t._rnd.randrange(99), completion_tokens=t._rnd.randrange(99),
    )  # fmt: skip


def _failed_question(t: Traffic, **e: Any) -> Event:
    """To a job that there may be, and to a question that nobody asked."""
    return InferenceFailed(**e, request=f"r{t._made}", job=_known(t, t._jobs), reason="model_away")


def _call(t: Traffic, **e: Any) -> Event:
    return ToolCallProposed(**e, call=e["id"], job=f"nobody-{t._made}", tool="refund", arguments="{}")


def _returned(t: Traffic, **e: Any) -> Event:
    return ToolReturned(**e, call=f"c{t._made}", job=f"nobody-{t._made}", tool="refund", ok=True, status=200)


def _known(t: Traffic, names: list[str]) -> str:
    return t._rnd.choice(names) if names else "nobody"


_KINDS: Any = tuple(
    zip(
        *(
            (_text, 22), (_rec, 10), (_document, 8), (_conversation, 6), (_output, 10), (_company, 5), (_tool, 8),
            (_revoked, 3), (_run, 2), (_accepted, 3), (_progressed, 5), (_trained, 2), (_ready, 3), (_job, 1.0),
            (_answer, 8), (_failed_question, 0.2), (_call, 1), (_returned, 1.5), (_stepped, 0.5),
            (_noted, 2), (_forgotten, 0.5), (_decided, 2),
        ),
        strict=True,
    )
)  # fmt: skip

assert {topic.name for topic in TOPIC_OF.values()} >= set(FOLDED)
