"""The long-lived processes, in one table: what `rillfold worker`, `up`, `doctor` and the demo know of each."""

from collections.abc import Iterator, Mapping
from typing import NamedTuple

from rillfold.settings import Settings


class Process(NamedTuple):
    line: str
    """In the list of commands."""
    several: str
    """Of what its name tells one apart."""
    door: bool = False
    """It answers HTTP, at RILLFOLD_<NAME>_HOST and _PORT; then the signals are the door's."""
    group: str = ""
    reads: str = ""
    """Of a plain consumer: its group, less the prefix, and the topic that it takes work from."""


# In the order in which they start: readers of a topic before those who write to it, so that nothing is late.
WORKERS: Mapping[str, Process] = {
    "fold": Process("Fold the event log into projections.", "workers of a group"),
    "sink": Process("Keep Postgres up to date with the projections.", "sinks of a data folder"),
    "bridge": Process(
        "Call the companies' tools.", "bridges of a data folder", group="rillfold-tool-bridge", reads="tool-call"
    ),
    "serve": Process(
        "Answer inference requests with base model and adapters.",
        "serving workers of a data folder",
        door=True,
        group="rillfold-serve",
        reads="inference-request",
    ),
    "train": Process(
        "Train adapters as requests come in.",
        "trainers of a data folder",
        group="rillfold-train",
        reads="training-request",
    ),
    "react": Process("Run the reactions of applications.", "reacting workers of a data folder"),
    "mlflow": Process("Note training runs in MLflow.", "processes of a data folder"),
}
# Each as a command of `rillfold`.
COMMANDS: Mapping[str, tuple[str, ...]] = {**{name: ("worker", name) for name in WORKERS}, "api": ("api",)}


def started(reacting: bool, tracking: bool = False) -> tuple[str, ...]:
    """Those that a whole installation runs; who reacts only where an application has reactions, and who notes runs only
    where there is an MLflow."""
    asked = {"react": reacting, "mlflow": tracking}
    return tuple(name for name in COMMANDS if asked.get(name, True))


def doors(settings: Settings) -> Iterator[tuple[str, str, int]]:
    """Name, host and port of each that answers HTTP, the API first."""
    for name in ("api", *(name for name, each in WORKERS.items() if each.door)):
        yield name, getattr(settings, f"{name}_host"), getattr(settings, f"{name}_port")
