"""`rillfold worker`: processes that do one thing until they are stopped, and say `ready` when they work."""

import click

from rillfold.cli import LazyGroup, Verb
from rillfold.processes import WORKERS

VERBS = {name: Verb(f"rillfold.workers.{name}:{name}", each.line) for name, each in WORKERS.items()}


@click.group(cls=LazyGroup, verbs=VERBS)
def worker() -> None:
    """Run one of the long-lived processes."""
