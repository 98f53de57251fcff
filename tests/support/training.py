"""A tiny Qwen3 that learns one company's calls in seconds, and what trainings are made of."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import suppress
from pathlib import Path

import pytest

from gpu_workers.bases import load as base_model
from gpu_workers.bases import tiny
from gpu_workers.bases.chat import Chat, render
from gpu_workers.train.lines import RunSpec
from processors.dataset.turns import DatasetCounts, Example, select
from processors.training.settings import TrainSettings
from rillfold.demo import data
from schemas.codec.codec import encode
from schemas.company import ConversationIngested, Message
from schemas.envelope import Event, Origin
from schemas.rejected import Unusable


@pytest.fixture(scope="session")
def tiny_base(tmp_path_factory) -> Path:
    texts = [render(talk) for company in data.COMPANIES for talk in data.training(company, 60)]
    return tiny.make(tmp_path_factory.mktemp("base") / "tiny-qwen3", texts)


@pytest.fixture(scope="session")
def tiny_loaded(tiny_base, tmp_path_factory):
    return base_model.load(str(tiny_base), tmp_path_factory.mktemp("cache"))


@pytest.fixture(scope="session")
def tiny_chat(tiny_loaded) -> Chat:
    return Chat.of(tiny_loaded[1])


@pytest.fixture
def quick() -> TrainSettings:
    """Enough to change every matrix, not to learn."""
    return TrainSettings(rank=4, alpha=8, steps=3, batch=4, warmup=1, evaluation_rows=4, dropout=0.1)


def writable(events: Iterable[Event]) -> list[Event]:
    """Those that a record can hold at all: the others never reach a worker."""
    found = []
    for event in events:
        with suppress(Unusable):
            encode(event)
            found.append(event)
    return found


def conversations(company: data.DemoCompany, count: int, requests: int = 0) -> list[ConversationIngested]:
    """Training conversations of a demo company, and held-out requests after them."""
    talks = data.training(company, count)
    return events_of(company, talks + [data.conversation(company, r)[:2] for r in data.held_out(company, requests)])


def events_of(company: data.DemoCompany, talks: Sequence[tuple[Message, ...]]) -> list[ConversationIngested]:
    return [
        ConversationIngested(
            id=f"{company.id}-{n}", company=company.id, time=n, correlation="c", agent="desk", messages=talk
        )
        for n, talk in enumerate(talks)
    ]


def rows_of(talks: Sequence[tuple[Message, ...]]) -> list[Example]:
    """As a replay selects them, one record for each conversation."""
    events = enumerate(events_of(data.ACME, talks))
    return [row for n, event in events for row in select(event, Origin("company-data", 0, n), event.company)]


def write_rows(path: Path, company: data.DemoCompany, count: int, requests: int):
    """A file of rows as a replay would write it, and its manifest."""
    tally = DatasetCounts()
    with path.open("wb") as out:
        for offset, event in enumerate(conversations(company, count, requests)):
            for example in select(event, Origin("company-data", 0, offset), company.id):
                out.write(tally.add(example))
    return tally.manifest(company.id, ())


def spec_for(tmp_path: Path, base: Path, method: str, settings: TrainSettings, name: str) -> RunSpec:
    """A run of a dozen conversations, on one thread, that keeps a checkpoint after each step."""
    manifest = write_rows(tmp_path / "rows", data.ACME, 12, 4)
    (out := tmp_path / name).mkdir()
    return RunSpec(
        rows=tmp_path / "rows", rows_sha256=manifest.rows_sha256, out=out, cache=tmp_path / "cache",
        base_model=str(base), method=method, settings=settings, threads=1,
        checkpoints=tmp_path / f"{name}-kept", checkpoint_seconds=0.0,
    )  # fmt: skip
