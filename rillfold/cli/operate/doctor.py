"""`rillfold doctor`: what this machine has, what is missing, and what to do about it."""

import sys

import click

from rillfold.cli.terminal.answers import as_json, say_json
from rillfold.cli.terminal.table import say_table
from rillfold.embedded.checks import Finding, examine
from rillfold.settings import from_env


@click.command()
@as_json("Print one JSON object.")
def doctor(as_json: bool) -> None:
    """Examine this machine; exit 1 on a problem."""
    findings = list(examine(from_env()))
    if as_json:
        say_json({"findings": findings})
    else:
        say_table(("state", "what", "found"), [(each.state, each.what, _told(each)) for each in findings])
    if any(finding.state == "problem" for finding in findings):
        sys.exit(1)


def _told(finding: Finding) -> str:
    return f"{finding.found}. {finding.remedy}" if finding.remedy else finding.found
