"""`rillfold status`: how all is, as far as the API knows, on one screen."""

import sys
import time
from collections.abc import Sequence
from typing import Any, NamedTuple

import click

from projections.jobs import ENDED as OVER
from projections.jobs import JOBS
from projections.lora_adapters import LORA_ADAPTERS
from projections.training_runs import ENDED, TRAINING_RUNS
from rillfold.cli.company.asking import Json, ListedRows, asked, company_option, in_pages
from rillfold.cli.terminal.answers import as_json, say_json
from rillfold.cli.terminal.plain import plain
from rillfold.client import ApiAway, Client

EVERY_SECONDS = 2.0
MOST, NAMED = 10_000, 5


class StatusLine(NamedTuple):
    what: str
    told: str
    wrong: bool = False


@click.command()
@click.option("--watch", is_flag=True, help="Again every two seconds, until Ctrl-C.")
@company_option
@as_json()
def status(watch: bool, company: str | None, as_json: bool) -> None:
    """Say how all is on one screen. Exit code 1: something is wrong."""
    while True:
        lines = asked(lambda api: _looked(api, company), company)
        if as_json:
            say_json({line.what: {"told": line.told, "wrong": line.wrong} for line in lines})
        else:
            _print(lines, watch)
        if not watch:
            sys.exit(1 if any(line.wrong for line in lines) else 0)
        try:
            time.sleep(EVERY_SECONDS)
        except KeyboardInterrupt:
            sys.exit(0)


async def _looked(api: Client, company: str | None) -> Sequence[StatusLine]:
    """Nothing else is asked of an API that is away or not ready: its answers would be old, or none."""
    try:
        await api.ask("GET", "/ready")
    except ApiAway as error:
        return [StatusLine("api", str(error), wrong=True)]
    proofs: Any = await api.ask("GET", "/projections")
    runs, jobs, adapters = [
        await in_pages(api, each.name, company, MOST) for each in (TRAINING_RUNS, JOBS, LORA_ADAPTERS)
    ]
    open_ = [row for row in runs.rows if row["status"] not in ENDED]
    at_work = [row for row in jobs.rows if row["status"] not in OVER]
    promoted = [row for row in adapters.rows if row["promoted"]]
    return [
        StatusLine("api", "ready"),
        _projections(proofs),
        StatusLine("runs", f"{len(open_)} open{_more(runs)}{_named(open_, 'run')}"),
        StatusLine("jobs", f"{len(at_work)} at work{_more(jobs)}{_named(at_work, 'job')}"),
        StatusLine("adapters", f"{len(adapters.rows)}{_more(adapters)}, {len(promoted)} of them promoted"),
    ]


def _more(found: ListedRows) -> str:
    """Where not all were looked at."""
    return "" if found.after is None else f" among the first {len(found.rows):,}"


def _named(rows: Sequence[Json], what: str) -> str:
    some = [f"{row['company']}/{row[what]}" for row in rows[:NAMED]]
    some += [f"{len(rows) - NAMED} more"] if len(rows) > NAMED else []
    return f": {', '.join(some)}" if some else ""


def _projections(proofs: Sequence[Json]) -> StatusLine:
    """Behind is no fault: events come in all the time. `--watch` shows whether it becomes less."""
    behind = {each["projection"]: sum(lag for of in each["lag"].values() for lag in of.values()) for each in proofs}
    late = ", ".join(f"{name} is {count} events behind" for name, count in behind.items() if count > 0)
    return StatusLine("projections", late or f"all {len(behind)} know the whole log")


def _print(lines: Sequence[StatusLine], again: bool) -> None:
    if again:
        click.clear()
    for line in lines:
        click.echo(plain(f"{'!' if line.wrong else ' '} {line.what:12} {line.told}"))
