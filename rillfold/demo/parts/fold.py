"""Part 2: projections grow while one looks; what was no event stands on the dead-letter topic, byte for byte."""

import time
from collections.abc import Callable
from functools import partial
from typing import Any

from rich.table import Table

from rillfold.demo.data import COMPANIES
from rillfold.demo.stage import Stage

REFUSED = 2


async def tell(stage: Stage) -> None:
    began = time.monotonic()
    with stage.narrator.live("folding") as show:
        for company in COMPANIES:
            await stage.until(f"the data of {company.id}", partial(_folded, stage, company.id, show))
    stage.say(f"all data was folded and in Postgres {time.monotonic() - began:.1f} s after the first look")
    for company in COMPANIES:
        tools = await stage.client.rows("company_tools", company_id=company.id)
        stage.expect(
            len(tools["rows"]) == len(company.tools), f"GET /projections/company_tools knows the tools of {company.id}"
        )
    stage.console.print(await stage.rillfold("query", "datasets", "--company", COMPANIES[0].id))
    refused = await stage.ask("dlq", "list")
    stage.expect(
        len(refused) == REFUSED, f"{REFUSED} records were refused, and lie on the dead-letter topic with their bytes"
    )
    stage.console.print(_reasons(refused))


async def _folded(stage: Stage, company: str, show: Callable[[str], None]) -> bool:
    rows = await stage.client.rows("datasets", company_id=company, limit=200)
    seen = sum(row["row"]["events"] for row in rows["rows"])
    show(f"{seen:,} of {stage.produced[company]:,} events of {company}")
    return bool(seen >= stage.produced[company])


def _reasons(refused: list[dict[str, Any]]) -> Table:
    table = Table("where", "why", "detail", box=None)
    for record in refused:
        table.add_row(
            f"{record['topic']}/{record['partition']}/{record['offset']}",
            str(record["reason"]),
            str(record["detail"])[:70],
        )
    return table
