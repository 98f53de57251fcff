"""What `rillfold projection` says to people: the answer first, and all of it, however narrow the terminal is."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import click

from rillfold.cli.terminal.plain import plain

Facts = Mapping[str, Any]
INDENT = "    "


def say_lines(lines: Iterable[str]) -> None:
    for line in lines:
        click.echo(plain(line))


def projections(every: Sequence[Facts]) -> Iterator[str]:
    width = max((len(each["projection"]) for each in every), default=0)
    for each in every:
        yield f"{each['projection']:{width}} v{each['version']}  {each['topics']}"


def refusals(every: Sequence[Facts]) -> Iterator[str]:
    for each in every:
        yield f"{each['reason']}: {each['detail']}"
        yield f"{INDENT}{each['projection']} v{each['version']}, company {each['company']}, event {each['event']}"
        yield f"{INDENT}{each['topic']}/{each['partition']}/{each['offset']}"
    if not every:
        yield "Nothing is refused."


def digests(every: Sequence[Facts]) -> Iterator[str]:
    """A digest stands in a line of its own: cut, it would prove nothing."""
    for each in every:
        yield f"{each['projection']} v{each['version']}: {_verdict(each)}"
        counts = [f"{each['rows']} rows of {each['events']} events"]
        counts += [f"{each[name]} {name}" for name in ("refused", "unreadable", "untaken") if each.get(name)]
        counts += [f"{each['seconds']} s"] if "seconds" in each else []
        yield f"{INDENT}{', '.join(counts)}"
        for name in ("served", "refolded"):
            if name in each:
                yield f"{INDENT}{name:8} {each[name]}"


def differs(facts: Facts) -> bool:
    """Without a refold nobody knows, but of a source that has grown."""
    if "refolded" not in facts:
        return "grown" in facts
    unlike = facts["served"] != facts["refolded"]
    return bool(unlike or facts["untaken"] or facts["unreadable"] or facts.get("grown"))


def _verdict(facts: Facts) -> str:
    if "refolded" not in facts and not differs(facts):
        return "as it is served"
    return "NOT the fold of the log" if differs(facts) else "the fold of the log"
