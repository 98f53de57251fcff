"""Part 7: the figures of this run, and where to look next."""

from rich.table import Table

from processors.prices import EXTERNAL, LOCAL, Price, cost
from rillfold.demo.data import ACME
from rillfold.demo.stage import Stage


async def tell(stage: Stage) -> None:
    await _costs(stage)
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


async def _costs(stage: Stage) -> None:
    """Of the jobs, by the tokens that their rows have counted."""
    rows = (await stage.client.rows("company_automation_jobs", limit=200))["rows"]
    jobs = [row["row"] for row in rows if row["row"]["status"] == "completed"]

    def mean(price: Price) -> float:
        return sum(cost(job["prompt_tokens"], 0, job["completion_tokens"], price) for job in jobs) / len(jobs)

    local, external = mean(LOCAL), mean(EXTERNAL)
    stage.figures["dollars a job, here"] = f"{local:.8f} (at {LOCAL.prompt} for a thousand tokens, assumed)"
    stage.figures["dollars a job, all external"] = (
        f"{external:.8f} (at {EXTERNAL.prompt} read, {EXTERNAL.completion} written)"
    )
