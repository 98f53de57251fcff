"""Whose fault is it? One company's runs may break by what it asks for; those of several in a row, by the machine."""

from __future__ import annotations

from gpu_workers.errors import Unhealthy

COMPANIES = 3


class Circuit:
    """So no single company can end the worker, and a broken card does not fail the whole topic."""

    def __init__(self) -> None:
        self._broken: dict[str, str] = {}

    def held(self) -> None:
        """A run went as far as its own words let it."""
        self._broken.clear()

    def broke(self, company: str, reason: str) -> None:
        self._broken[company] = reason
        if len(self._broken) >= COMPANIES:
            reasons = ", ".join(sorted(set(self._broken.values())))
            raise Unhealthy(
                f"The runs of {len(self._broken)} companies in a row broke ({reasons}), so this machine is to blame. "
                "The last request waits; look at the log above, the card, the memory and the disk."
            )
