"""`rillfold trace`: what led to what, from the first event to the last."""

import time
from collections import defaultdict
from collections.abc import Mapping, Sequence

import click
from rich.tree import Tree

from rillfold.cli.terminal.answers import as_json, say_json, say_tree
from rillfold.cli.terminal.given import COMPANY, Number
from rillfold.cli.terminal.plain import marked
from rillfold.event_log import in_log
from schemas.envelope import Event
from streams.history.story import StoryEvent, story

WIDTH = 90
# What says most about an event, in this order.
TELLING = ("reason", "answer", "tool", "arguments", "adapter", "kind", "text", "task", "status", "detail", "phase")


@click.command()
@click.argument("name", metavar="JOB")
@click.option("--company", type=COMPANY, required=True, help="Whose story: another company may have the same ids.")
@click.option("--hours", default=24.0, show_default=True, type=Number(0, 1e6), help="How far back to look.")
@as_json("One JSON list of events, each with its place in the log.")
def trace(name: str, company: str, hours: float, as_json: bool) -> None:
    """Print the story of a JOB (or a training run, or any event id) as a tree of causes."""
    since = int((time.time() - hours * 3600) * 1000)
    told = in_log(lambda log, names: story(log, names, company, name, since))
    if as_json:
        say_json([{"at": str(each.origin), "timestamp": each.timestamp, "event": each.event} for each in told])
        return
    say_tree(tree(told))


def tree(told: Sequence[StoryEvent]) -> Tree:
    """Each event under the one that caused it. An event that stands in the log twice is told once."""
    once = {each.event.id: each for each in reversed(told)}
    following: Mapping[str | None, list[StoryEvent]] = defaultdict(list)
    for each in reversed(once.values()):
        cause = each.event.causation
        following[cause if cause in once else None].append(each)
    begun = min(each.timestamp for each in told)
    first = next(iter(following[None]))
    root = Tree(f"[bold]{marked(first.event.company)}[/] {marked(first.event.correlation)}")
    _grow(root, following[None], following, begun)
    return root


def _grow(
    under: Tree, events: Sequence[StoryEvent], following: Mapping[str | None, Sequence[StoryEvent]], begun: int
) -> None:
    for each in events:
        said = marked(_said(each.event)[:WIDTH])
        line = f"{each.event.type} [dim]+{each.timestamp - begun} ms  {each.origin}[/]"
        _grow(under.add(f"{line}\n{said}" if said else line), following[each.event.id], following, begun)


def _said(event: Event) -> str:
    values = ((name, getattr(event, name, None)) for name in TELLING)
    return "  ".join(f"{name}={value}" for name, value in values if value and isinstance(value, str))
