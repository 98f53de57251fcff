"""Part 7: the figures of this run, and where to look next."""

from __future__ import annotations

from rich.table import Table

from rillfold.demo.data import ACME
from rillfold.demo.stage import Stage


async def tell(stage: Stage) -> None:
    table = Table("figure", "this run", box=None, title_justify="left")
    for name, value in stage.figures.items():
        table.add_row(name, value)
    for name, seconds in stage.seconds.items():
        table.add_row(f"[dim]part {name}[/]", f"[dim]{seconds:.1f} s[/]")
    stage.console.print(table)
    stage.say(f"open        {stage.urls['api']}/docs")
    stage.say("with `make demo KEEP=1` the stack stays; then, in another terminal:")
    where = f"RILLFOLD_DATA_DIR={stage.data_dir}"
    for line in ("query training_runs", f"lineage {ACME.id}/default", f"chat --company {ACME.id}"):
        stage.say(f"  {where} .venv/bin/rillfold {line}")
    stage.say(f"  psql '{stage.endpoints.postgres_dsn}' -c 'table rillfold.lora_adapters'")
