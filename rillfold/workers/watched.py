"""Puts a worker under watch: the watchman, its listener, its figures."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from prometheus_client.registry import Collector

from rillfold.http.operator import operator_of
from rillfold.settings import Settings
from rillfold.workers.listener import Answers, FindRow, listening
from rillfold.workers.metrics import registry
from streams.health.watch import Bounds, Counts, Healthy
from streams.health.watchman import Look, Watchman
from streams.log.kafka.log import KafkaLog


@contextmanager
def watched(
    settings: Settings,
    name: str,
    servers: str,
    look: Look,
    count: Callable[[], Counts],
    row: FindRow | None = None,
    more: Collector | None = None,
) -> Iterator[Watchman]:
    watchman = Watchman(look, Bounds(settings.stall_seconds, settings.stall_exit_seconds))
    figures = registry(watchman, count)
    if more is not None:
        figures.register(more)
    answers = Answers(lambda: stands(watchman), figures, operator_of(settings), row)
    told = settings.data_dir / "run" / f"{name}.json"
    with (
        listening(answers, settings.worker_host, settings.worker_port, told),
        watchman.on_duty(lambda: KafkaLog(servers, client_id=f"rillfold-watch-{name}")),
    ):
        yield watchman


def stands(watchman: Watchman) -> str | None:
    """Why it is not ready."""
    found = watchman.verdict
    return None if isinstance(found, Healthy) else found.what
