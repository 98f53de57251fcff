"""Logs that stay readable in an outage: a message is said once in a while, with the number of times it was not said."""

import logging
import re
import time
from collections.abc import Callable

EVERY_SECONDS = 10.0
KINDS = 1000
"""Messages told apart at most: one that is new each time must not cost memory for ever."""
FORMAT = "%(asctime)s %(levelname)s %(name)s: %(message)s"
_digits = re.compile(r"\d+")


class OncePer(logging.Filter):
    """Messages that differ only in numbers, or in their arguments, are one kind."""

    def __init__(self, seconds: float = EVERY_SECONDS, clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__()
        self._seconds, self._clock = seconds, clock
        self._kinds: dict[tuple[str, int, str], tuple[float, int]] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        if record.levelno >= logging.CRITICAL or hasattr(record, "named"):
            return True
        now, kind = self._clock(), _kind(record)
        until, swallowed = self._kinds.get(kind, (now, 0))
        if now < until:
            self._kinds[kind] = (until, swallowed + 1)
            return False
        self._kinds.pop(kind, None)
        if len(self._kinds) >= KINDS:
            del self._kinds[next(iter(self._kinds))]
        self._kinds[kind] = (now + self._seconds, 0)
        if swallowed:
            record.msg, record.args = f"{record.getMessage()} (and {swallowed} more since the last)", ()
        return True


def _kind(record: logging.LogRecord) -> tuple[str, int, str]:
    text = str(record.msg)
    return record.name, record.levelno, _digits.sub("0", record.getMessage() if text == "%s" else text)[:200]


def install(level: str = "WARNING") -> None:
    """The one handler of a worker: libraries that would put up their own find it there."""
    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter(FORMAT))
    handler.addFilter(OncePer())
    logging.basicConfig(level=level.upper(), handlers=[handler])
