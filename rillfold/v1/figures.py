"""The engine's figures for Prometheus. No label is a company; adapters are those in memory, whose number is bounded."""

import time
from collections.abc import Iterable, Mapping

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from gpu_workers.serve.port import EngineStats, InferenceEngine
from gpu_workers.serve.seen import Histogram, Who

NAMES = 100
"""Of adapters in one label."""


class EngineMetrics(Collector):
    """Read at each scrape, so a scrape shows exactly which adapters are in memory, also when nobody asks for them.

    The queue, the cache's use and the adapters of requests are what the model server protocol of the Gateway API's
    inference extension asks for, by names of ours, which it lets a model server have.
    """

    def __init__(self, engine: InferenceEngine) -> None:
        self._engine = engine

    def collect(self) -> Iterable[Metric]:
        stats = self._engine.stats()
        yield from _gauges(stats)
        yield from _counters(stats)
        yield from self._adapters(stats)
        yield self._requests(stats)
        seen = self._engine.seen
        yield _histogram("queue", "From a question to its row in the batch.", seen.queued)
        yield _histogram("first_token", "From a question to its first token.", seen.first)
        yield _histogram("between_tokens", "From one token of an answer to the next.", seen.between)

    def _adapters(self, stats: EngineStats) -> Iterable[Metric]:
        tiers = GaugeMetricFamily(
            "rillfold_serve_adapters", "Adapter versions, where each is nearest.", labels=["tier"]
        )
        for tier, count in stats.tiers.items():
            tiers.add_metric([tier], count)
        size = GaugeMetricFamily("rillfold_serve_adapter_bytes", "Adapters in memory.", labels=["adapter", "version"])
        for resident in self._engine.resident():
            size.add_metric([resident.key.name, str(resident.key.version)], resident.bytes)
        yield from (tiers, size)

    def _requests(self, stats: EngineStats) -> Metric:
        """One series, whose labels are what it tells: its value says when that was so."""
        labels = ["max_lora", "running_lora_adapters", "waiting_lora_adapters"]
        told = "When these adapters were asked for; a router reads which."
        found = GaugeMetricFamily("rillfold_serve_lora_requests_info", told, labels=labels)
        running, waiting = (",".join(self._engine.seen.adapters(running)[:NAMES]) for running in (True, False))
        found.add_metric([str(stats.capacity), running, waiting], time.time())
        return found


def _gauges(stats: EngineStats) -> Iterable[Metric]:
    for name, value in (("waiting", stats.waiting), ("running", stats.running)):
        yield GaugeMetricFamily(f"rillfold_serve_rows_{name}", f"Questions {name}.", value)
    yield GaugeMetricFamily("rillfold_serve_adapters_known", "Adapter versions that may be asked for.", stats.known)
    yield GaugeMetricFamily("rillfold_serve_pages", "Pages of the cache of keys and values.", stats.pages)
    yield GaugeMetricFamily("rillfold_serve_pages_held", "Of these, by rows that run.", stats.pages_held)
    used = stats.pages_held / stats.pages if stats.pages else 0.0
    yield GaugeMetricFamily("rillfold_serve_kv_cache_usage", "The part of the pages that rows hold: 0 to 1.", used)


def _counters(stats: EngineStats) -> Iterable[Metric]:
    for name, value in (("loads", stats.loads), ("hits", stats.hits), ("evictions", stats.evictions)):
        yield CounterMetricFamily(f"rillfold_serve_adapter_{name}", f"Adapter {name} so far.", value)
    yield CounterMetricFamily("rillfold_serve_prompt_tokens", "Tokens of prompts so far.", stats.prompt_tokens)
    yield CounterMetricFamily("rillfold_serve_cached_tokens", "Of these, read once before.", stats.cached_tokens)
    yield CounterMetricFamily("rillfold_serve_tokens", "Tokens said so far.", stats.tokens)


def _histogram(name: str, told: str, by_class: Mapping[Who, Histogram]) -> Metric:
    family = HistogramMetricFamily(f"rillfold_serve_{name}_seconds", told, labels=["who"])
    for who, histogram in by_class.items():
        family.add_metric([who], histogram.buckets(), histogram.sum)
    return family
