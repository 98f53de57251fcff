"""What is seen of questions: each wait in its histogram, labels of a few values, and names for a router to read."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import pytest
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.parser import text_string_to_metric_families

from gpu_workers.serve.port import AdapterKey, EngineStats, Resident
from gpu_workers.serve.seen import BETWEEN, Histogram, Seen
from rillfold.v1.figures import NAMES, EngineMetrics


class Clock:
    def __init__(self) -> None:
        self.now = 5.0

    def __call__(self) -> float:
        return self.now


def test_a_histogram_counts_what_is_at_most_each_bound() -> None:
    histogram = Histogram((0.1, 1.0))
    for value in (0.05, 0.1, 0.5, 7.0):
        histogram.add(value)
    assert histogram.buckets() == [("0.1", 2), ("1.0", 3), ("+Inf", 4)]
    assert histogram.sum == pytest.approx(7.65)


def test_each_wait_is_seen_once() -> None:
    clock = Clock()
    seen = Seen(clock)
    with seen.visit("acme", "acme/ops") as visit, seen.visit(None, None) as other:
        clock.now += 2
        visit.let_in()
        visit.let_in()
        assert seen.adapters(running=True) == ["acme/ops"] and seen.adapters(running=False) == []
        clock.now += 1
        visit.said()
        for _ in range(3):
            clock.now += 0.03
            visit.said()
        other.said()  # of an engine that does not say when it is let in
    assert [seen.queued[who].sum for who in ("company", "operator")] == pytest.approx([2.0, 3.09])
    assert [seen.first[who].sum for who in ("company", "operator")] == pytest.approx([3.0, 3.09])
    assert seen.between["company"].sum == pytest.approx(0.09) and seen.between["company"].buckets()[-1] == ("+Inf", 3)
    assert seen.between["operator"].buckets()[-1] == ("+Inf", 0)
    assert visit.tokens == 4 and seen.adapters(running=True) == []


class FakeFigures:
    """An engine at which something can be seen."""

    def __init__(self) -> None:
        self.seen = Seen()

    def stats(self) -> EngineStats:
        return EngineStats(
            waiting=7, running=3, known=9, resident=2, loads=5, hits=4, evictions=1, pages=200, pages_held=50,
            cached_tokens=30, prompt_tokens=90, tokens=12, capacity=100, tiers={"device": 2, "disk": 7},
        )  # fmt: skip

    def resident(self) -> tuple[Resident, ...]:
        return (Resident(key=AdapterKey("acme/ops", 3), rank=8, bytes=77, in_use=1),)


def figures(engine: Any) -> dict[str, list[Any]]:
    registry = CollectorRegistry()
    registry.register(EngineMetrics(engine))
    families: Iterator[Any] = iter(text_string_to_metric_families(generate_latest(registry).decode()))
    return {family.name: family.samples for family in families}


def value(found: dict[str, list[Any]], name: str, **labels: str) -> float:
    (one,) = [sample.value for sample in found[name] if sample.labels == labels]
    return float(one)


def test_the_figures_of_the_engine_are_those_of_its_state() -> None:
    engine = FakeFigures()
    with engine.seen.visit("acme", "acme/ops") as visit:
        visit.said()
    found = figures(engine)
    assert value(found, "rillfold_serve_rows_waiting") == 7 and value(found, "rillfold_serve_rows_running") == 3
    assert value(found, "rillfold_serve_kv_cache_usage") == 0.25
    assert value(found, "rillfold_serve_pages") == 200 and value(found, "rillfold_serve_pages_held") == 50
    assert value(found, "rillfold_serve_prompt_tokens") == 90 and value(found, "rillfold_serve_cached_tokens") == 30
    assert value(found, "rillfold_serve_tokens") == 12
    assert [value(found, "rillfold_serve_adapters", tier=tier) for tier in ("device", "disk")] == [2, 7]
    assert value(found, "rillfold_serve_adapter_bytes", adapter="acme/ops", version="3") == 77
    for name in ("queue", "first_token", "between_tokens"):
        samples = found[f"rillfold_serve_{name}_seconds"]
        assert {sample.labels["who"] for sample in samples} == {"company", "operator"}
        counts = {sample.labels["who"]: sample.value for sample in samples if sample.name.endswith("_count")}
        assert counts == {"company": 0 if name == "between_tokens" else 1, "operator": 0}
    assert len(found["rillfold_serve_between_tokens_seconds"]) == 2 * (len(BETWEEN) + 3)


def test_a_router_reads_which_adapters_are_asked_for_and_the_series_is_bounded() -> None:
    engine, started = FakeFigures(), time.time()
    visits = [engine.seen.visit("acme", f"acme/a{n:04}") for n in range(3 * NAMES)]
    for n, each in enumerate(visits):
        visit = each.__enter__()
        if n < 2:
            visit.let_in()
    (info,) = figures(engine)["rillfold_serve_lora_requests_info"]
    assert info.labels["max_lora"] == "100" and info.labels["running_lora_adapters"] == "acme/a0000,acme/a0001"
    assert len(info.labels["waiting_lora_adapters"].split(",")) == NAMES
    assert started - 1 <= info.value <= time.time()
    assert set(info.labels) == {
        "max_lora",
        "running_lora_adapters",
        "waiting_lora_adapters",
    }
