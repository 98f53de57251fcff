"""Time as an input."""

EPOCH_MS = 1_767_225_600_000
"""2026-01-01, so that a failing test prints the same times everywhere."""


class VirtualClock:
    """Milliseconds since 1970. Stands still until it is told to go on."""

    def __init__(self, start_ms: int = EPOCH_MS) -> None:
        self._now = start_ms

    def __call__(self) -> int:
        return self._now

    def advance(self, seconds: float) -> None:
        assert seconds >= 0, "time goes on, never back"
        self._now += round(seconds * 1000)
