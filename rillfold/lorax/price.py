"""From what was measured to euros. Plain arithmetic; every figure says whether it was measured."""

from __future__ import annotations

import math
from collections.abc import Sequence

import msgspec

from rillfold.lorax.measure import Reading

GIB = 1 << 30
SECONDS = 3_600


class Prices(msgspec.Struct, frozen=True, kw_only=True):
    """What the caller pays. The defaults are examples, not offers."""

    gpu_hour: float = 2.5
    gpu_gib: float = 80.0
    gpu_share: float = 0.9
    """Of a GPU's memory, to be used."""
    gib_hour: float = 0.005


class Bill(msgspec.Struct, frozen=True, kw_only=True):
    """One way to have so many agents."""

    way: str
    """engine: one for all; models: one each."""
    agents: int
    measured: bool
    """False: memory on a straight line through what was measured, speed as the most that was measured."""
    bytes: int
    tokens_per_s: float
    tokens_per_cpu_s: float
    gpus: int
    """By memory alone. 0: one model, or one engine, has no room on such a GPU."""
    euros_gpu_hour: float
    euros_memory_hour: float
    euros_million_tokens: float
    """At the memory's price, at this machine's speed."""


def bills(engine: Sequence[Reading], models: Sequence[Reading], agents: int, prices: Prices) -> list[Bill]:
    """Both ways, for each number that was measured and last for `agents`."""
    counts = sorted({reading.agents for reading in (*engine, *models) if reading.agents < agents})
    return [bill for n in (*counts, agents) for bill in (_engine(engine, n, prices), _models(models, n, prices))]


def _engine(readings: Sequence[Reading], agents: int, prices: Prices) -> Bill:
    at = _at(readings, agents)
    return _bill("engine", at, at in readings, prices, _gpus_whole(at.bytes, prices))


def _models(readings: Sequence[Reading], agents: int, prices: Prices) -> Bill:
    at = _at(readings, agents)
    return _bill("models", at, at in readings, prices, _gpus_each(at.bytes / agents, agents, prices))


def _at(readings: Sequence[Reading], agents: int) -> Reading:
    """As it was measured, or on the straight line through the first and the last."""
    for reading in readings:
        if reading.agents == agents:
            return reading
    first, last = readings[0], readings[-1]
    each = (last.bytes - first.bytes) / (last.agents - first.agents) if last is not first else first.bytes
    size = round(last.bytes + each * (agents - last.agents))
    return msgspec.structs.replace(last, agents=agents, bytes=size)


def _gpus_whole(size: int, prices: Prices) -> int:
    """One engine does not split: more than a GPU holds is more engines, each with the base again. Then it is 0."""
    return 1 if size <= prices.gpu_gib * prices.gpu_share * GIB else 0


def _gpus_each(size: float, agents: int, prices: Prices) -> int:
    """Nor does a model."""
    on_one = math.floor(prices.gpu_gib * prices.gpu_share * GIB / size)
    return math.ceil(agents / on_one) if on_one else 0


def _bill(way: str, at: Reading, measured: bool, prices: Prices, gpus: int) -> Bill:
    memory = at.bytes / GIB * prices.gib_hour
    return Bill(
        way=way,
        agents=at.agents,
        measured=measured,
        bytes=at.bytes,
        tokens_per_s=round(at.tokens_per_s, 1),
        tokens_per_cpu_s=round(at.tokens_per_cpu_s, 1),
        gpus=gpus,
        euros_gpu_hour=round(gpus * prices.gpu_hour, 4),
        euros_memory_hour=round(memory, 6),
        euros_million_tokens=round(memory / (at.tokens_per_s * SECONDS) * 1_000_000, 4),
    )
