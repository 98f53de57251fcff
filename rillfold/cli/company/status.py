"""`rillfold status`: how all is, as far as the API knows from where it runs, on one screen."""

import sys
import time
from collections.abc import Mapping, Sequence
from typing import Any

import click

from projections.jobs import ENDED as OVER
from projections.jobs import JOBS
from projections.lora_adapters import LORA_ADAPTERS
from projections.training_runs import ENDED, TRAINING_RUNS
from rillfold.cli.company.asking import Json, ListedRows, asked, company_option, in_pages
from rillfold.cli.company.here import StatusLine, lines
from rillfold.cli.terminal.answers import as_json, say_json
from rillfold.cli.terminal.plain import plain
from rillfold.client import NOT_THERE, ApiAway, ApiRefused, Client

EVERY_SECONDS = 2.0
MOST, NAMED = 10_000, 5
NOT_TOLD = 403


@click.command()
@click.option("--watch", is_flag=True, help="Again every two seconds, until Ctrl-C.")
@company_option
@as_json("One JSON object: each subject with its lines, and whether one is wrong. With --watch one a line.")
def status(watch: bool, company: str | None, as_json: bool) -> None:
    """Say how all is on one screen. Exit code 1: something is wrong, and stands behind a `!` with its remedy."""
    try:
        while True:
            found = _found(company)
            if as_json:
                say_json({line.what: _of(line.what, found) for line in found})
            else:
                _print(found, watch)
            if not watch:
                sys.exit(1 if any(line.wrong for line in found) else 0)
            time.sleep(EVERY_SECONDS)
    except KeyboardInterrupt:
        sys.exit(0)


def _of(what: str, found: Sequence[StatusLine]) -> Json:
    mine = [line for line in found if line.what == what]
    return {"told": [line.told for line in mine], "wrong": any(line.wrong for line in mine)}


def _found(company: str | None) -> Sequence[StatusLine]:
    """An API that goes away while one looks is what is wrong."""
    try:
        return asked(lambda api: _looked(api, company), company, lambda _: company is not None)
    except ApiAway as error:
        return [StatusLine("api", str(error), wrong=True)]


async def _looked(api: Client, company: str | None) -> Sequence[StatusLine]:
    """Nothing else is asked of an API that is not ready: its answers would be old, or none."""
    await api.ask("GET", "/ready")
    proofs: Any = await api.ask("GET", "/projections")
    runs, jobs, adapters = [
        await in_pages(api, each.name, company, MOST) for each in (TRAINING_RUNS, JOBS, LORA_ADAPTERS)
    ]
    open_ = [row for row in runs.rows if row["status"] not in ENDED]
    at_work = [row for row in jobs.rows if row["status"] not in OVER]
    promoted = [row for row in adapters.rows if row["promoted"]]
    behind = _behind(proofs)
    return [
        StatusLine("api", "ready"),
        _projections(behind, proofs),
        StatusLine("runs", f"{len(open_)} open{_more(runs)}{_named(open_, 'run')}"),
        StatusLine("jobs", f"{len(at_work)} at work{_more(jobs)}{_named(at_work, 'job')}"),
        StatusLine("adapters", f"{len(adapters.rows)}{_more(adapters)}, {len(promoted)} of them promoted"),
        *await _operators(api, sum(behind.values())),
    ]


async def _operators(api: Client, behind: int) -> Sequence[StatusLine]:
    try:
        return list(lines(await api.ask("GET", "/status"), behind))
    except ApiRefused as error:
        if error.status not in (NOT_TOLD, NOT_THERE):
            raise
        why = "an API of this release" if error.status == NOT_THERE else "the admin's key"
        return [StatusLine("operator", f"workers, letters and disk are not looked at: that takes {why}")]


def _more(found: ListedRows) -> str:
    """Where not all were looked at."""
    return "" if found.after is None else f" among the first {len(found.rows):,}"


def _named(rows: Sequence[Json], what: str) -> str:
    some = [f"{row['company']}/{row[what]}" for row in rows[:NAMED]]
    some += [f"{len(rows) - NAMED} more"] if len(rows) > NAMED else []
    return f": {', '.join(some)}" if some else ""


def _behind(proofs: Sequence[Json]) -> Mapping[str, int]:
    return {
        each["projection"]: sum(max(0, lag) for of in each["lag"].values() for lag in of.values()) for each in proofs
    }


def _projections(behind: Mapping[str, int], proofs: Sequence[Json]) -> StatusLine:
    """Behind is no fault: events come in all the time. `--watch` shows whether it becomes less. A log that is shorter
    than what was folded of it is one."""
    lags = {f"{t}/{p}": lag for each in proofs for t, of in each["lag"].items() for p, lag in of.items()}
    if lost := sorted(place for place, lag in lags.items() if lag < 0):
        return StatusLine(
            "projections", f"folded further than what {', '.join(lost)} holds; the fold says more", wrong=True
        )
    late = ", ".join(f"{name} is {count} events behind" for name, count in behind.items() if count > 0)
    return StatusLine("projections", late or f"all {len(behind)} know the whole log")


def _print(lines: Sequence[StatusLine], again: bool) -> None:
    if again:
        click.clear()
    for line in lines:
        click.echo(plain(f"{'!' if line.wrong else ' '} {line.what:12} {line.told}"))
