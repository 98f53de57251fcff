"""`rillfold worker`: processes that do one thing until they are stopped, and say `ready` when they work."""

from __future__ import annotations

import click

from rillfold.cli import LazyGroup, Verb

WORKERS: dict[str, Verb] = {
    "fold": Verb("rillfold.workers.fold:fold", "Fold the event log into projections."),
    "sink": Verb("rillfold.workers.sink:sink", "Keep Postgres up to date with the projections."),
    "bridge": Verb("rillfold.workers.bridge:bridge", "Call the companies' tools."),
    "serve": Verb("rillfold.workers.serve:serve", "Answer inference requests with base model and adapters."),
    "train": Verb("rillfold.workers.train:train", "Train adapters as requests come in."),
}


@click.group(cls=LazyGroup, verbs=WORKERS)
def worker() -> None:
    """Run one of the long-lived processes."""
