"""The long-lived processes, in one table: what `rillfold worker`, `up`, `doctor` and the demo know of each."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import NamedTuple

from rillfold.settings import Settings


class Process(NamedTuple):
    line: str
    """In a list of commands."""
    told: str = ""
    """By its own `--help`."""
    several: str = ""
    """Of what its name tells one apart."""
    door: bool = False
    """It answers HTTP, at RILLFOLD_<NAME>_HOST and RILLFOLD_<NAME>_PORT, and what it does there ends it in order."""


# In the order in which they start: readers of a topic before those who write to it, so that nothing is late.
WORKERS: Mapping[str, Process] = {
    "fold": Process(
        "Fold the event log into projections.",
        "Fold the event log into projections, with changelogs and local state.",
        "workers of a group",
    ),
    "sink": Process(
        "Keep Postgres up to date with the projections.",
        "Keep Postgres up to date with the projections. Several may run: they share the partitions.",
        "sinks of a data folder",
    ),
    "bridge": Process(
        "Call the companies' tools.",
        "Call the companies' tools. The only process that opens their credentials.",
        "bridges of a data folder",
    ),
    "serve": Process(
        "Answer inference requests with base model and adapters.",
        "Answer requests of the log and of HTTP with the base model and every adapter that the log says is ready.",
        "serving workers of a data folder",
        door=True,
    ),
    "train": Process(
        "Train adapters as requests come in.",
        "Train adapters as requests come in. Several of these share the work by company.",
        "trainers of a data folder",
    ),
}
API = Process("Serve the HTTP API.", door=True)
# Each as a command of `rillfold`.
COMMANDS: Mapping[str, tuple[str, ...]] = {**{name: ("worker", name) for name in WORKERS}, "api": ("api",)}


def doors(settings: Settings) -> Iterator[tuple[str, str, int]]:
    """Name, host and port of each that answers HTTP."""
    for name in sorted(name for name, each in {**WORKERS, "api": API}.items() if each.door):
        yield name, getattr(settings, f"{name}_host"), getattr(settings, f"{name}_port")
