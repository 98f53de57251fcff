"""Our engine as the parts see it: the one place that knows how it is made and asked."""

import time
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any, NamedTuple

from bench.part import Missing
from bench.serve.scene import ONE_THREAD, Scene
from bench.serve.timed import Timed
from gpu_workers.adapters.store import FolderStore
from gpu_workers.adapters.weights import LoraWeights, read_adapter
from gpu_workers.refused import UnusableAdapter
from gpu_workers.serve.engine.decoder import Decoder
from gpu_workers.serve.engine.engine import Engine, LoraRow, Said
from gpu_workers.serve.engines.embedded import EmbeddedEngine
from gpu_workers.serve.engines.start import EngineSetup, embedded
from gpu_workers.serve.schedule.rows import EngineRow, Limits

MEMORY = 1_024
"""MiB for keys and values: enough for every part that has the whole engine."""
KNOWN = {field.name for field in fields(EngineRow)}


class Ask(NamedTuple):
    prompt: list[int]
    adapter: LoraWeights | None
    new: int
    more: dict[str, Any] = {}  # noqa: RUF012 - nobody writes it
    """Fields of a row that most rows leave as they are."""


class Played(NamedTuple):
    said: list[list[int]]
    heard: Mapping[int, list[float]]
    """When each token of a ticket came, in seconds of this process from the start."""
    seconds: float
    rows: list[LoraRow]

    def timed(self) -> Timed:
        return Timed(self.said, self.seconds)

    def first(self, ticket: int = 0) -> float:
        return self.heard[ticket][0]


def rows_of(asks: Sequence[Ask], first: int = 0) -> list[LoraRow]:
    for ask in asks:
        if unknown := set(ask.more) - KNOWN:
            raise Missing(f"rows of this engine have no {', '.join(sorted(unknown))}")
    return [LoraRow(ticket, ask.prompt, ask.adapter, ask.new, **ask.more) for ticket, ask in enumerate(asks, first)]


def read(folder: Path) -> LoraWeights:
    """An adapter that this bench has made: where it is refused, this engine cannot serve its kind."""
    try:
        return read_adapter(folder)
    except UnusableAdapter as error:
        raise Missing(str(error)) from error


def cached(row: LoraRow) -> int:
    """Tokens of its prompt that another row had read."""
    return int(getattr(row, "cached", 0))


def make_engine(model: Any, stops: frozenset[int] = frozenset(), rows: int = 32) -> Engine:
    """One that never stops early, where nothing stops it."""
    return Engine(Decoder(model), stops, Limits(rows=rows))


Also = Callable[[Said, float], None]
"""Told of what a row says, and when: may ask more."""


def play(engine: Engine, asks: Sequence[Ask], also: Also | None = None) -> Played:
    """All at once, to the end. Whoever falls ends the bench."""
    rows = rows_of(asks)
    heard: defaultdict[int, list[float]] = defaultdict(list)
    began = time.process_time()
    for row in rows:
        engine.submit(row)
    while engine.busy():
        step = engine.step()
        now = time.process_time() - began
        for each in step:
            if not isinstance(each, Said):
                raise SystemExit(f"row {each.ticket} fell: {each.why}")
            heard[each.ticket] += [now] * len(each.tokens)
            if also is not None:
                also(each, now)
    return Played([row.said for row in rows], heard, time.process_time() - began, rows)


class Ours:
    """A batch that is asked at once, by the number of each row's adapter."""

    def __init__(self, scene: Scene, adapters: Sequence[Path], rows: int) -> None:
        self.engine = make_engine(scene.plain.model, rows=rows)
        self.weights = [read(folder) for folder in adapters]

    def said(self, prompts: Sequence[list[int]], adapters: Sequence[int | None], new: int) -> Timed:
        held = [None if which is None else self.weights[which] for which in adapters]
        play(self.engine, [Ask([0], weights, 1) for weights in held])  # they sit in their lanes, as PEFT's do in theirs
        asks = [Ask(prompt, weights, new) for prompt, weights in zip(prompts, held, strict=True)]
        return play(self.engine, asks).timed()


def whole(scene: Scene, rows: int = 32, adapters: int = 100, store: FolderStore | None = None) -> EmbeddedEngine:
    """With reading, residency and admission, as the worker has it; one company may have all of it."""
    return _embedded(scene.base, scene.cache, rows, adapters, store)


def tiny_engine(base: Path, cache: Path, adapters: int) -> EmbeddedEngine:
    """Of a base in a folder; adapters are announced with theirs."""
    return _embedded(str(base), cache, 32, adapters)


def _embedded(base: str, cache: Path, rows: int, adapters: int, store: FolderStore | None = None) -> EmbeddedEngine:
    setup = EngineSetup(ONE_THREAD, Limits(rows=rows), adapters, adapters, Limits.waiting, memory=MEMORY)
    return embedded(base, cache, setup, store)
