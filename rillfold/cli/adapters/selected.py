"""What a dataset's selection met in the log: a name that is nowhere there is refused, the rest is told."""

from collections.abc import Iterator

import click

from processors.dataset.noticed import SHOWN, Noticed
from processors.dataset.turns import Manifest


def must_be_there(noticed: Noticed) -> None:
    """Nobody is to believe that something was left out, or narrowed to, that was never there."""
    for member, name in noticed.nowhere():
        if member == "leave_out":
            raise click.UsageError(
                f"--leave-out {name!r}: no event in the ranges has this entity, so nothing of it was left out. "
                "Compare it with `entity` of the events that were sent, or take it out of the command."
            )
        if member != "agents":
            raise click.UsageError(
                f"select.{member} names {name!r}, and no answer or conversation in the ranges is of it. "
                "Compare it with the events that were sent, or take it out of the command."
            )
        there = ", ".join(noticed.agents) or "none"
        more = ", and more" if len(noticed.agents) == SHOWN else ""
        raise click.UsageError(f"--agent {name!r}: no answer in the ranges is of this agent; there: {there}{more}.")


def told(manifest: Manifest, noticed: Noticed | None) -> Iterator[str]:
    """Lines for people, beside the manifest's."""
    if not manifest.trained:
        yield "nothing to train on: a run over these ranges and this selection is refused (no_data)"
    if noticed is None:
        return
    for name, events in noticed.left_out.items():
        yield f"left out {name}: {events} events"
    for used in manifest.rules or ():
        yield f"rule {used.name}: {used.events} events"
    yield from noticed.failures
    if noticed.unheard:
        yield f"{noticed.unheard} judgements (feedback.given) hit no answer here: `about` names none of its events"
