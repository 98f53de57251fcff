"""`rillfold topics`: create, check and list the topics of this installation."""

import sys
from datetime import timedelta

import click

from rillfold.app.installed import installed
from rillfold.cli.terminal.answers import as_json, say_json
from rillfold.cli.terminal.table import say_table
from rillfold.cli.terminal.verbs import Verbs
from rillfold.event_log import in_log
from rillfold.settings import from_env
from schemas.codec.catalog import kind_of
from schemas.topics import BY_NAME, TopicNames, events_on
from streams.log.kafka import admin
from streams.log.port import EventLog


@click.group(cls=Verbs)
def topics() -> None:
    """Create, check or list the topics, as the one table of topics says."""


@topics.command()
@as_json()
def create(as_json: bool) -> None:
    """Make the topics that are absent. Those that stand are left alone; `check` compares them."""
    settings = from_env()
    installed(settings)
    if settings.schema_registry is not None:  # and there all schemas
        from streams.log.kafka.registry import Registry

        with Registry(settings.schema_registry) as registry:
            registry.register(settings.topic_names())
    made = in_log(admin.create)
    if as_json:
        say_json({"created": made})
        return
    for name in made:
        click.echo(f"created {name}")
    click.echo(f"{len(made)} created, {len(BY_NAME) - len(made)} there already.")


@topics.command()
@as_json()
def check(as_json: bool) -> None:
    """Compare the broker's topics with the table; exit 1 if anything differs."""
    found = in_log(admin.check)
    if as_json:
        say_json({"differences": [difference._asdict() for difference in found]})
    elif not found:
        click.echo(f"All {len(BY_NAME)} topics are as they should be.")
    else:
        for one in found:
            click.echo(f"{one.topic}: {one.setting} is {one.found}, should be {one.wanted}. Remedy: {one.remedy}")
    sys.exit(1 if found else 0)


@topics.command(name="list")
@as_json()
def list_(as_json: bool) -> None:
    """Show every topic with its name on the broker, its settings and how many offsets it holds."""
    rows = in_log(_rows)
    if as_json:
        say_json({"topics": rows})
        return
    heads = ("topic", "on the broker", "key", "partitions", "retention", "offsets held", "events")
    say_table(heads, [tuple(row.values()) for row in rows])


async def _rows(log: EventLog, names: TopicNames) -> list[dict[str, object]]:
    rows = []
    found = await log.describe([names.wire(topic.name) for topic in BY_NAME.values()])
    for topic in BY_NAME.values():
        wire = names.wire(topic.name)
        held: int | str = "absent"
        if wire in found:
            held = sum((await log.ends(wire)).values()) - sum((await log.starts(wire)).values())
        rows.append(
            {
                "topic": topic.name,
                "wire": wire,
                "key": topic.key.__name__.removeprefix("by_"),
                "partitions": found[wire].partitions if wire in found else names.partitions(topic.name),
                "retention": _for_how_long(topic.retention_ms),
                "held": held,
                "events": ", ".join(kind_of(event).type for event in events_on(topic)),
            }
        )
    return rows


def _for_how_long(milliseconds: int) -> str:
    return "for ever" if milliseconds < 0 else str(timedelta(milliseconds=milliseconds)).removesuffix(", 0:00:00")
