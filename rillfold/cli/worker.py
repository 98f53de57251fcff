"""`rillfold worker`: processes that do one thing until they are stopped, and say `ready` when they work."""

from __future__ import annotations

import click

from rillfold.cli import LazyGroup

WORKERS: dict[str, str] = {
    "fold": "rillfold.cli.worker_fold:fold",
    "sink": "rillfold.cli.worker_sink:sink",
    "bridge": "rillfold.cli.worker_bridge:bridge",
    "serve": "rillfold.cli.worker_serve:serve",
    "train": "rillfold.cli.worker_train:train",
}


@click.group(cls=LazyGroup, verbs=WORKERS)
def worker() -> None:
    """Run one of the long-lived processes."""
