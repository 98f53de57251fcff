"""What a worker counts, for Prometheus. Read when it is asked for; one series a partition, none a key or a company."""

from collections.abc import Callable, Iterable, Mapping

from prometheus_client import CollectorRegistry, ProcessCollector
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from streams.health.watch import Counts, Healthy
from streams.health.watchman import Watchman


class Readings(Collector):
    def __init__(self, watchman: Watchman, count: Callable[[], Counts]) -> None:
        self._watchman, self._count = watchman, count

    def collect(self) -> Iterable[Metric]:
        state, verdict, now = self._watchman.state, self._watchman.verdict, self._watchman.now()
        for name, (what, count) in self._count().items():
            yield _counter(f"rillfold_{name}", what, count)
        yield CounterMetricFamily("rillfold_stalls", "Times that it stood still.", value=self._watchman.stalls)
        yield GaugeMetricFamily("rillfold_ready", "1 while it works.", value=float(isinstance(verdict, Healthy)))
        yield GaugeMetricFamily(
            "rillfold_restoring", "1 while rows are restored.", value=float(state.phase == "restoring")
        )
        yield GaugeMetricFamily("rillfold_log_age_seconds", "Since the event log last answered.", value=now - state.log)
        lag = GaugeMetricFamily("rillfold_lag", "Offsets behind the end.", labels=("topic", "partition"))
        age = GaugeMetricFamily(
            "rillfold_commit_age_seconds",
            "Since it last moved; 0 at the end.",
            labels=("topic", "partition"),
        )
        position = GaugeMetricFamily("rillfold_position", "The next offset to take in.", labels=("topic", "partition"))
        for (topic, partition), place in list(state.places.items()):
            labels = (topic, str(partition))
            behind = place.end - place.position if (topic, partition) in state.lost else place.lag
            lag.add_metric(labels, behind)
            age.add_metric(labels, now - place.since if place.lag else 0.0)
            position.add_metric(labels, place.position)
        yield from (lag, age, position)


def _counter(name: str, what: str, count: float | Mapping[str, float]) -> CounterMetricFamily:
    if not isinstance(count, Mapping):
        return CounterMetricFamily(name, what, value=count)
    family = CounterMetricFamily(name, what, labels=("projection",))
    for projection, number in count.items():
        family.add_metric((projection,), number)
    return family


def registry(watchman: Watchman, count: Callable[[], Counts]) -> CollectorRegistry:
    found = CollectorRegistry()
    found.register(Readings(watchman, count))
    ProcessCollector(registry=found)
    return found
