"""`rillfold job`: give a company's automation something to do, and see what came of it."""

import sys
from collections.abc import Mapping
from typing import Any

import click
import msgspec

from rillfold.cli.company.asking import Json, asked, company_option, listing, rows, show
from rillfold.cli.terminal.answers import as_json, say, say_json
from rillfold.cli.terminal.given import Number
from rillfold.cli.terminal.plain import plain
from rillfold.client import Client

WAIT = 60.0
MOST_WAIT = 300.0
_WAIT = click.option(
    "--wait", default=WAIT, show_default=True, type=Number(0, MOST_WAIT), help="Seconds to wait for the end."
)


@click.group()
def job() -> None:
    """Run a job, or look at those that there are."""


@job.command()
@click.argument("task")
@click.option("--data", "data", metavar="JSON", help="What the task is about.")
@click.option("--role", help="Whose adapter works: company/ROLE.")
@click.option("--base", is_flag=True, help="The base model works, with the tools in its prompt.")
@click.option("--call", is_flag=True, help="The first answer is one call of a tool, and can be nothing else.")
@click.option("--session", help="What the job belongs to.")
@click.option("--id", "id_", help="Your own id of the job: it is done once, however often you send it.")
@_WAIT
@company_option
@as_json()
def run(
    task: str,
    data: str | None,
    role: str | None,
    base: bool,
    call: bool,
    session: str | None,
    id_: str | None,
    wait: float,
    company: str | None,
    as_json: bool,
) -> None:
    """Do TASK. Exit code 1: it failed, and says why."""
    given = {
        "role": role,
        "session": session,
        "job": id_,
        "company_id": company,
        "first_step": "call" if call else None,
    }
    body = {name: value for name, value in given.items() if value is not None}
    about = {"task": task} | ({} if data is None else {"data": _parsed(data)})

    async def done(api: Client) -> Json:
        asking = {**body, "data": about, "use_adapter": not base}
        return await api.ask("POST", "/company-automation/process", asking, {"wait": wait})

    _tell(asked(done), as_json)


@job.command("show")
@click.argument("name", metavar="JOB")
@_WAIT
@company_option
@as_json()
def show_(name: str, wait: float, company: str | None, as_json: bool) -> None:
    """How JOB stands: as soon as it has ended, or when the time is over."""
    _tell(asked(lambda api: api.job(company, name, wait)), as_json)


@job.command("list")
@listing
def list_(company: str | None, after: str | None, limit: int, as_json: bool) -> None:
    """The company's jobs."""
    columns = {
        "job": lambda row: row["job"],
        "status": lambda row: row["status"],
        "what came of it": lambda row: row["answer"] or " ".join(filter(None, (row["reason"], row["detail"]))),
        "task": lambda row: row["task"],
    }
    show(rows("company_automation_jobs", company, limit, after), columns, as_json)


def _parsed(text: str) -> Any:
    try:
        return msgspec.json.decode(text)
    except msgspec.DecodeError as error:
        raise click.BadParameter(plain(f"--data {text!r} is no JSON: {error}. A text needs its quotes.")) from error


def _tell(told: Mapping[str, Any], as_json: bool) -> None:
    if as_json:
        say_json(told)
    else:
        facts = {name: told[name] for name in ("job", "status", "answer", "reason", "detail") if told.get(name)}
        say(facts)
        for step in told["steps"]:
            click.echo(plain(f"  {step['step']} {step['kind']}: {step['detail']}"))
        if told["status"] == "running":
            click.echo(f"It goes on: `rillfold job show {told['job']}` says when it has ended.")
    sys.exit(1 if told["status"] == "failed" else 0)
