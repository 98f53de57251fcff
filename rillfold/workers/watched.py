"""Puts a worker under watch: the watchman, its listener, its figures."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager

from prometheus_client import CollectorRegistry
from prometheus_client.registry import Collector

from rillfold.http.operator import operator_of
from rillfold.settings import Settings
from rillfold.workers.listener import Answers, FindRow, listening
from rillfold.workers.metrics import registry
from streams.health.watch import Counts, Healthy, Patience
from streams.health.watchman import Look, Watchman
from streams.log.kafka.access import KafkaAccess
from streams.log.kafka.log import KafkaLog


@contextmanager
def watched(
    settings: Settings,
    name: str,
    access: KafkaAccess,
    look: Look,
    count: Callable[[], Counts],
    row: FindRow | None = None,
    more: Collector | None = None,
) -> Iterator[Watchman]:
    watchman = Watchman(look, Patience(settings.stall_seconds, settings.stall_exit_seconds))
    figures = registry(watchman, count)
    if more is not None:
        figures.register(more)
    with (
        listened(settings, name, lambda: stands(watchman), figures, row),
        watchman.on_duty(lambda: KafkaLog(access, client_id=f"rillfold-watch-{name}")),
    ):
        yield watchman


def listened(
    settings: Settings,
    name: str,
    stands: Callable[[], str | None],
    figures: CollectorRegistry,
    row: FindRow | None = None,
) -> AbstractContextManager[str]:
    """The listener that every worker has, and the API."""
    answers = Answers(stands, figures, operator_of(settings), row)
    return listening(answers, settings.worker_host, settings.worker_port, settings.data_dir / "run" / f"{name}.json")


def stands(watchman: Watchman) -> str | None:
    """Why it is not ready."""
    found = watchman.verdict
    return None if isinstance(found, Healthy) else found.what
