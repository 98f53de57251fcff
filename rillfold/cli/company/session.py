"""`rillfold session`: what jobs were asked for together."""

import click

from projections.sessions import SESSIONS
from rillfold.cli.company.asking import listing, rows, show
from rillfold.cli.terminal.answers import moment
from rillfold.cli.terminal.verbs import Verbs


@click.group(cls=Verbs)
def session() -> None:
    """List a company's sessions."""


@session.command("list")
@listing
def list_(company: str | None, after: str | None, limit: int, as_json: bool) -> None:
    """Each with its newest job. `rillfold job show JOB` says how that stands."""
    columns = {
        "session": lambda row: row["session"],
        "jobs": lambda row: row["jobs"],
        "last": lambda row: moment(row["last_at"]),
        "newest job": lambda row: row["latest"][-1]["job"] if row["latest"] else "",
        "task": lambda row: row["latest"][-1]["task"] if row["latest"] else "",
    }
    show(rows(SESSIONS.name, company, limit, after), columns, as_json)
