"""`rillfold runs`: the adapters that were asked for, and what became of each wish."""

from collections.abc import Sequence

import click

from projections.training_runs import ENDED, TRAINING_RUNS
from rillfold.cli.company.asking import MOST, SHOWN, Json, company_option, listing, rows, said, show
from rillfold.cli.terminal.answers import as_json, moment, say, say_json
from rillfold.cli.terminal.verbs import Verbs
from schemas.errors import Stop


@click.group(cls=Verbs)
def runs() -> None:
    """List training runs, look at one, or take its wish back."""


@runs.command("list")
@click.option("--open", "open_", is_flag=True, help="Only those that wait or train.")
@listing
def list_(open_: bool, company: str | None, after: str | None, limit: int, as_json: bool) -> None:
    """The company's training runs."""
    columns = {
        "status": lambda row: row["status"],
        "what came of it": _came,
        "for": lambda row: f"{row['company']}/{row['role']}",
        "since": lambda row: moment(row["requested_at"]),
        "run": lambda row: row["run"],
    }
    wanted = (lambda row: row["status"] not in ENDED) if open_ else None
    show(rows(TRAINING_RUNS.name, company, limit, after, wanted), columns, as_json)


@runs.command("show")
@click.argument("run")
@company_option
@as_json("The whole row, as JSON.")
def show_(run: str, company: str | None, as_json: bool) -> None:
    """How RUN stands now. Exit code 0 also where it failed: to show it went well. `rillfold train --wait` is 1 then."""
    row = _run(run, company)
    if as_json:
        say_json(row)
        return
    told = {name: row[name] for name in ("run", "status", "method", "base_model", "adapter", "sha256") if row[name]}
    if row["passed_over"]:
        told["passed over"] = f"{row['passed_over']} other requests under this id: ask again under one of their own"
    say({**told, "for": f"{row['company']}/{row['role']}", "since": moment(row["requested_at"]), "": _came(row)})


@runs.command()
@click.argument("run")
@click.option("--reason", default="", help="Stands in the log.")
@company_option
def cancel(run: str, reason: str, company: str | None) -> None:
    """Take back the wish for an adapter. RUN is refused where it waits, and stopped where it trains."""
    row = _run(run, company)
    if row["status"] in ENDED:
        raise Stop(f"Run {run} has ended already, as {row['status']}: there is nothing to take back.")
    wish = {"type": "training.withdrawn", "run": run, "reason": reason}
    said([wish], row["company"], topic="training-request")
    say({"cancelled": f"{row['company']}/{run}"})


def _run(run: str, company: str | None) -> Json:
    """Whoever has the admin's key may leave out whose it is: a run's id is nobody else's."""
    every = rows(TRAINING_RUNS.name, company, MOST, None).rows
    found = [row for row in every if row["run"] == run and row["status"] != "unknown"]
    if len(found) != 1:
        whose = ", ".join(sorted(row["company"] for row in found))
        why = f"Several companies have a run {run!r} ({whose}): say --company." if found else _nowhere(run, every)
        raise Stop(why)
    return found[0]


def _nowhere(run: str, every: Sequence[Json]) -> str:
    open_ = [row["run"] for row in every if row["status"] not in ENDED]
    return f"There is no run {run!r}. Without an outcome: {', '.join(open_[-SHOWN:]) or 'none'}."


def _came(row: Json) -> str:
    """Its end, or how far it is."""
    if row["status"] in ENDED:
        return row["adapter"] or " ".join(filter(None, (row["reason"], row["detail"])))
    if row["withdrawn"] is not None:
        return "its wish is taken back"
    far = f"{row['phase']} {row['step']}/{row['steps']}" if row["phase"] else ""
    left = f", {row['seconds_left']:.0f} s left" if row["seconds_left"] else ""
    return f"{far}{left}"
