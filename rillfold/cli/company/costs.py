"""`rillfold costs`: what a company's adapters and the base have read and written, and what that costs."""

from collections.abc import Callable

import click

from processors.prices import Price, cost
from projections.costs import COSTS
from rillfold.cli.company.asking import Json, listing, rows, show
from rillfold.cli.terminal.answers import moment
from rillfold.cli.terminal.given import MOST, Number

LEFT_OUT = (
    "Counted are answers that stand in the log: of jobs, and of requests by topic. Answers over HTTP (`rillfold chat`, "
    "/v1) leave no event: rillfold_serve_prompt_tokens_total and rillfold_serve_tokens_total of the "
    "serving worker's /metrics count all."
)
MILLION, THOUSAND = 1_000_000, 1_000


@click.command()
@click.option(
    "--prices",
    nargs=3,
    type=Number(0, MOST),
    metavar="READ CACHED WRITTEN",
    help="What a million tokens cost, in your currency: says what all came to.",
)
@listing
def costs(
    prices: tuple[float, float, float] | None, company: str | None, after: str | None, limit: int, as_json: bool
) -> None:
    """Tokens by adapter and model, of answers that stand in the log: those over HTTP leave no event, and are not among
    them. Those read include the cached ones, which are told again beside them."""
    columns: dict[str, Callable[[Json], object]] = {
        "adapter": lambda row: f"{row['company']}: base" if row["adapter"] == "base" else row["adapter"],
        "requests": lambda row: f"{row['requests']:,}",
        "read": lambda row: f"{row['prompt_tokens']:,}",
        "cached": lambda row: f"{row['cached_tokens']:,}",
        "written": lambda row: f"{row['completion_tokens']:,}",
        "model": lambda row: row["model"],
        "last": lambda row: moment(row["last_at"]),
    }
    found = rows(COSTS.name, company, limit, after)
    if prices:
        price = Price(*(each * THOUSAND / MILLION for each in prices))
        found = found._replace(rows=[{**row, "cost": _cost(row, price)} for row in found.rows])
        columns = {"adapter": columns["adapter"], "cost": lambda row: f"{row['cost']:.4f}"} | columns
    show(found, columns, as_json, left_out=LEFT_OUT)


def _cost(row: Json, price: Price) -> float:
    return cost(row["prompt_tokens"], row["cached_tokens"], row["completion_tokens"], price)
