"""A broker of a test's own, which it may stop and start again at the same address."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from rillfold.embedded import ports
from rillfold.embedded.stack import running
from rillfold.settings import from_env


class OwnBroker:
    def __init__(self, folder: Path) -> None:
        self._folder, self._running = folder, ExitStack()
        self._settings = from_env({"RILLFOLD_KAFKA_PORT": str(ports.free_port())})

    def start(self) -> str:
        """Where it is to be reached."""
        stack = running(self._folder, postgres=False, settings=self._settings)
        return self._running.enter_context(stack).bootstrap_servers

    def segments(self, topic: str, partition: int = 0) -> int:
        """Files of a partition's records: each is open as long as it stands."""
        return len(list((self._folder / "kafka" / "data" / f"{topic}-{partition}").glob("*.log")))

    def stop(self) -> None:
        self._running.close()


@pytest.fixture
def broker() -> Iterator[OwnBroker]:
    with TemporaryDirectory(prefix="rillfold-broker-") as folder:
        own = OwnBroker(Path(folder))
        yield own
        own.stop()
