"""`rillfold doctor`: what this machine has, what is missing, and what to do about it."""

import sys

import click
from rich.console import Console
from rich.table import Table

from rillfold.cli.terminal.answers import as_json, say_json
from rillfold.embedded.checks import Finding, examine
from rillfold.settings import from_env

MARKS = {"ok": "[green]ok[/]", "note": "[yellow]note[/]", "problem": "[red]problem[/]"}


@click.command()
@as_json("Print one JSON object.")
def doctor(as_json: bool) -> None:
    """Examine this machine; exit 1 on a problem."""
    findings = list(examine(from_env()))
    if as_json:
        say_json({"findings": findings})
    else:
        _show(findings)
    if any(finding.state == "problem" for finding in findings):
        sys.exit(1)


def _show(findings: list[Finding]) -> None:
    table = Table(box=None, show_header=False, pad_edge=False)
    for finding in findings:
        found = f"{finding.found}. {finding.remedy}" if finding.remedy else finding.found
        table.add_row(MARKS[finding.state], finding.what, found)
    Console(highlight=False).print(table)
