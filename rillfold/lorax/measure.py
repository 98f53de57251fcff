"""What agents cost on this machine: many on one engine, or a model each. Both are loaded, asked and looked at, each in
a process of its own, so that neither pays for what the other left."""

from __future__ import annotations

import asyncio
import os
import shutil
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import AsyncExitStack
from multiprocessing import get_context
from pathlib import Path
from tempfile import TemporaryDirectory

import msgspec

from gpu_workers.bases.before_torch import settle
from gpu_workers.serve.port import AdapterKey, AdapterSpec, Answer, Failure, InferenceEngine, Question
from rillfold import wiring
from rillfold.lorax.errors import NotAnswered
from rillfold.settings import Settings
from schemas.company import Message
from schemas.errors import Stop

MARGIN = 2
"""So many times what the next one takes must be free before it is loaded."""


class CostPlan(msgspec.Struct, frozen=True, kw_only=True):
    """What is measured."""

    settings: Settings
    agents: int
    models: tuple[int, ...] = (1, 2, 4)
    """So many separate models at once."""
    rank: int = 16
    questions: int = 32
    tokens: int = 16

    def engine_steps(self) -> tuple[int, ...]:
        return tuple(sorted({n for n in self.models if n < self.agents} | {self.agents}))


class Reading(msgspec.Struct, frozen=True, kw_only=True):
    """So many agents, loaded and asked."""

    agents: int
    bytes: int
    """Of weights, adapters, KV and buffers: all that the process took since it had only its libraries."""
    tokens_per_s: float
    tokens_per_cpu_s: float
    """By the processor time of the process, which other work on the machine lengthens less."""


class Footprint(msgspec.Struct, frozen=True, kw_only=True):
    of: tuple[Reading, ...]
    base: str
    device: str
    dtype: str
    threads: int
    base_bytes: int
    """Weights and KV of one model, after it was asked."""
    adapter_bytes: int = 0
    """Of one adapter's matrices, in memory."""
    full: bool = False
    """There was no room for more."""


Measured = Callable[[CostPlan], Footprint]


def apart(measured: Measured, plan: CostPlan) -> Footprint:
    """In a child process that is gone afterwards."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        try:
            return pool.submit(measured, plan).result()
        except BrokenProcessPool as error:
            raise Stop(f"The process that measured {measured.__name__} died: was it memory? Ask for fewer.") from error


def one_engine(plan: CostPlan) -> Footprint:
    """All agents on one engine: a base, and an adapter each."""
    return asyncio.run(_one_engine(plan))


def separate_models(plan: CostPlan) -> Footprint:
    """A model each: as if every agent's adapter were merged into weights of its own, which is the fastest that a model
    of one's own can be. They share a process, which spares them a runtime each."""
    return asyncio.run(_separate_models(plan))


async def _one_engine(plan: CostPlan) -> Footprint:
    settle()
    from gpu_workers.adapters.dice import rolled

    with TemporaryDirectory() as scratch:
        meter = _Meter(plan)
        settings = msgspec.structs.replace(
            plan.settings, serve_adapters=plan.agents, serve_company_adapters=plan.agents
        )
        async with wiring.engine(settings) as engine:
            await meter.asked([(engine, None)])
            base, readings, loaded, full = meter.held(), list[Reading](), 0, False
            for n in plan.engine_steps():
                while loaded < n and not (full := meter.full(_largest(engine))):
                    folder = rolled(meter.folder, Path(scratch) / str(loaded), loaded, plan.rank)
                    await engine.load(AdapterSpec(key=AdapterKey(_agent(loaded), 1), folder=folder))
                    loaded += 1
                reading = await meter.read([(engine, _agent(i)) for i in range(loaded)])
                readings.append(reading)
                if full:
                    break
            return meter.told(readings, base, _largest(engine), full)


async def _separate_models(plan: CostPlan) -> Footprint:
    settle()
    with TemporaryDirectory() as scratch:
        meter = _Meter(plan)
        async with AsyncExitStack() as stack:
            engines, readings, base, full = list[InferenceEngine](), list[Reading](), 0, False
            for n in plan.models:
                while len(engines) < n and not (full := meter.full(base)):
                    place = _own_weights(meter.folder, Path(scratch) / str(len(engines)))
                    settings = msgspec.structs.replace(plan.settings, base_model=str(place))
                    engines.append(await stack.enter_async_context(wiring.engine(settings)))
                if full:
                    break
                readings.append(await meter.read([(engine, None) for engine in engines]))
                base = base or readings[0].bytes
            if not readings:
                raise Stop("There is no memory for one model of its own: free some, and ask again.")
            return meter.told(readings, base, 0, full)


class _Meter:
    """Looks at this process."""

    def __init__(self, plan: CostPlan) -> None:
        from gpu_workers.bases.device import Device
        from gpu_workers.bases.load import prepare

        self._plan, self._settings = plan, plan.settings
        self._device = Device.best(plan.settings.serve_threads or os.cpu_count())
        self.folder = prepare(self._settings.bases()[self._settings.base_name()], self._settings.cache_dir)
        self._before = self._device.held()

    def held(self) -> int:
        return self._device.held() - self._before

    def full(self, next_one: int) -> bool:
        free = self._device.free()
        return free is not None and free < MARGIN * next_one

    async def read(self, agents: list[tuple[InferenceEngine, str | None]]) -> Reading:
        """Once to warm up, once for the figures."""
        await self.asked(agents, tokens=2)
        began, worked = time.monotonic(), time.process_time()
        said = await self.asked(agents)
        seconds, worked = time.monotonic() - began, time.process_time() - worked
        return Reading(
            agents=len(agents), bytes=self.held(), tokens_per_s=said / seconds, tokens_per_cpu_s=said / worked
        )

    async def asked(self, agents: list[tuple[InferenceEngine, str | None]], tokens: int | None = None) -> int:
        """Each at least once, all at the same time, as many questions as the plan says. How many tokens they said."""
        questions = max(self._plan.questions, len(agents))
        asks = [_asked(*agents[i % len(agents)], i, tokens or self._plan.tokens) for i in range(questions)]
        return sum(await asyncio.gather(*asks))

    def told(self, readings: list[Reading], base: int, adapter: int, full: bool) -> Footprint:
        dtype = self._settings.serve_dtype
        return Footprint(
            of=tuple(readings),
            base=self._settings.base_name(),
            device=self._device.named(),
            dtype=self._device.dtype if dtype == "auto" else dtype,
            threads=self._device.threads,
            base_bytes=base,
            adapter_bytes=adapter,
            full=full,
        )


async def _asked(engine: InferenceEngine, adapter: str | None, n: int, tokens: int) -> int:
    words = (Message(role="user", content=f"Question {n}: what should we do next, and why?"),)
    said = await engine.answer(Question(id=str(n), messages=words, adapter=adapter, max_tokens=tokens))
    if isinstance(said, Failure):
        raise NotAnswered(adapter or engine.model, said.reason, said.detail)
    assert isinstance(said, Answer)
    return said.completion_tokens


def _agent(n: int) -> str:
    return f"agent-{n}"


def _largest(engine: InferenceEngine) -> int:
    return max((each.bytes for each in engine.resident()), default=0)


def _own_weights(base: Path, place: Path) -> Path:
    """Files of its own: one that several models map would be in memory once."""
    return Path(shutil.copytree(base, place))
