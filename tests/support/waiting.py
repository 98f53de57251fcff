"""Waiting for what another process does: it tells nobody when it is done."""

import time
from collections.abc import Callable
from typing import Any


def until(what: str, look: Callable[[], Any], seconds: float, pause: float = 0.1) -> Any:
    """The first true answer."""
    end = time.monotonic() + seconds
    while not (found := look()):
        assert time.monotonic() < end, f"waited in vain for {what}"
        time.sleep(pause)
    return found
