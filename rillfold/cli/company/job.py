"""`rillfold job`: give a company's automation something to do, see what came of it, or take it back."""

import sys
from collections.abc import Awaitable, Mapping
from typing import Any

import click
import msgspec

from rillfold.cli.company.asking import Json, asked, company_option, listing, rows, show
from rillfold.cli.terminal.answers import as_json, say, say_json
from rillfold.cli.terminal.given import ROLE, Number
from rillfold.cli.terminal.plain import plain
from rillfold.cli.terminal.verbs import Verbs
from rillfold.client import NOT_THERE, ApiRefused, Client
from schemas.errors import Stop

WAIT, CANCEL_WAIT = 60.0, 10.0
MOST_WAIT = 300.0
JOBS = "company_automation_jobs"
_WAIT = click.option(
    "--wait", default=WAIT, show_default=True, type=Number(0, MOST_WAIT), help="Seconds to wait for the end."
)


@click.group(cls=Verbs)
def job() -> None:
    """Run a job, look at those that there are, or take one back."""


@job.command()
@click.argument("task")
@click.option("--data", "data", metavar="JSON", help="What the task is about.")
@click.option("--role", type=ROLE, help="Whose adapter works: company/ROLE.")
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
    """Do TASK. Exit code 1: it failed, and says why, or was taken back."""
    given = {"role": role, "session": session, "job": id_, "first_step": "call" if call else None}
    more = {name: value for name, value in given.items() if value is not None}
    about = {"task": task} | ({} if data is None else {"data": _parsed(data)})

    async def done(api: Client) -> Json:
        told = await api.process(company, about, wait, use_adapter=not base, **more)
        if id_ is not None:
            await _must_be_of(api, told, task)
        return told

    _tell(asked(done, company), as_json)


@job.command("show")
@click.argument("name", metavar="JOB")
@_WAIT
@company_option
@as_json()
def show_(name: str, wait: float, company: str | None, as_json: bool) -> None:
    """How JOB stands: as soon as it has ended, or when the time is over."""

    _tell(asked(lambda api: _of(name, api.job(company, name, wait)), company), as_json)


@job.command("list")
@listing
def list_(company: str | None, after: str | None, limit: int, as_json: bool) -> None:
    """The company's jobs."""
    columns = {
        "status": lambda row: row["status"],
        "what came of it": lambda row: row["answer"] or " ".join(filter(None, (row["reason"], row["detail"]))),
        "task": lambda row: row["task"],
        "job": lambda row: row["job"],
    }
    show(rows(JOBS, company, limit, after), columns, as_json)


@job.command()
@click.argument("name", metavar="JOB")
@click.option("--reason", default="", help="Stands in the log.")
@click.option(
    "--wait", default=CANCEL_WAIT, show_default=True, type=Number(0, MOST_WAIT), help="Seconds until it is known."
)
@company_option
@as_json()
def cancel(name: str, reason: str, wait: float, company: str | None, as_json: bool) -> None:
    """Take JOB back: it asks and calls nothing more. What is under way may still come back, and stays in the log."""
    told = asked(lambda api: _of(name, api.cancel_job(company, name, reason, wait)), company)
    if as_json:
        say_json(told)
        return
    say({"cancelled": f"{told['company_id']}/{told['job']}"})
    if told["status"] != "withdrawn":
        click.echo(f"It stands in the log, and is obeyed once it is folded: see `rillfold job show {told['job']}`.")
    elif told["withdrawn"] is None:
        click.echo("It was taken back before, and is so once.")


async def _of(name: str, answer: Awaitable[Json]) -> Json:
    try:
        return await answer
    except ApiRefused as error:
        if error.status == NOT_THERE:
            raise Stop(f"There is no job {name!r}, or it is another company's: see `rillfold job list`.") from error
        raise


async def _must_be_of(api: Client, told: Json, task: str) -> None:
    """A job is done once: whoever takes an id again for something else would be told what came of the first."""
    before = await api.found(JOBS, f"{told['company_id']}/{told['job']}")
    if before is not None and before["task"] not in ("", task):
        first = before["task"][:100]
        raise Stop(f"Job {told['job']!r} is of another task ({first}), and this one is not done: take another --id.")


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
    sys.exit(1 if told["status"] in ("failed", "withdrawn") else 0)
