"""`rillfold lineage`: what an adapter is made of, down to the offsets."""

import asyncio
from typing import Any

import click
import msgspec
from rich.tree import Tree

from gpu_workers.serve.port import spelled
from processors.training.schedule import FEWEST_STEPS, NoSchedule, rank_schedule
from processors.training.settings import TrainSettings
from projections.lora_adapters import LORA_ADAPTERS
from rillfold.cli.terminal.answers import as_json, say_json, say_tree
from rillfold.cli.terminal.given import ADAPTER
from rillfold.cli.terminal.plain import marked
from rillfold.event_log import read_model
from rillfold.profiles import of_the_settings
from rillfold.settings import Settings, from_env
from schemas.adapters import company_of
from schemas.errors import Poison

VERSIONS = 1_000


class NoSuchAdapter(Poison):
    """No adapter of this name is ready."""


@click.command()
@click.argument("adapter", type=ADAPTER, metavar="COMPANY/ROLE[@VERSION]")
@as_json("The whole row.")
def lineage(adapter: str, as_json: bool) -> None:
    """Show what an adapter came from; its newest version where none is named."""
    row = asyncio.run(_read(from_env(), adapter))
    if as_json:
        say_json(row)
        return
    say_tree(_tree(row))


async def _read(settings: Settings, adapter: str) -> dict[str, Any]:
    name, version = _spelled(adapter)
    company = company_of(name)
    async with read_model(of_the_settings(settings)) as reads:
        rows = [row.value for row in await reads.rows(LORA_ADAPTERS, company, None, VERSIONS) if row.value["event"]]
    found = [row for row in rows if row["adapter"] == name and version in (None, row["version"])]
    if not found:
        known = ", ".join(f"{row['adapter']}@{row['version']}" for row in rows) or "none"
        raise NoSuchAdapter(f"No adapter {adapter!r} is ready. Ready for {company}: {known}.")
    return max(found, key=lambda row: int(row["version"]))


def _rank(row: dict[str, Any]) -> str:
    """AdaLoRA begins with one rank for all matrices, and ends with others that are the target on average."""
    if row["method"] != "adalora":
        return f"rank {row['rank']}"
    try:
        settings = msgspec.convert(msgspec.json.decode(row["identity"])["settings"], TrainSettings)
    except (msgspec.MsgspecError, KeyError, TypeError):
        return f"rank {row['rank']}"
    plan = rank_schedule(settings, FEWEST_STEPS)  # the ranks are the same for any number of steps
    if isinstance(plan, NoSchedule):
        return f"rank {row['rank']}"
    return f"rank {plan.first_rank} at first, {plan.target_rank} on average at the end"


def _spelled(adapter: str) -> tuple[str, int | None]:
    """COMPANY/ROLE@N, as everywhere; COMPANY/ROLE/N, as it was once written here, still."""
    company, _, rest = adapter.partition("/")
    role, _, number = rest.partition("/")
    return spelled(f"{company}/{role}@{number}" if number else adapter)


def _tree(row: dict[str, Any]) -> Tree:
    root = Tree(f"[bold]{marked(row['adapter'])}[/] version {row['version']}")
    root.add(f"weights   sha256 {marked(row['sha256'])}")
    root.add(f"method    {marked(row['method'])}, {_rank(row)}, alpha {row['alpha']}, seed {row['seed']}")
    root.add(f"base      {marked(row['base_model'])}, sha256 {marked(row['base_sha256'])}")
    root.add(f"run       {marked(row['run'])}")
    if row["evaluation"]:
        score = row["evaluation"]
        root.add(f"held out  {score['before']:.3f} -> {score['after']:.3f} exact on {score['examples']} requests")
    if row["verdict"]:
        said, against = "promoted" if row["promoted"] else "not promoted", row["against"]
        than = "the base" if against is None else f"version {against}"
        root.add(f"gate      {said}: {marked(row['verdict'])}, against {than}. {marked(row['verdict_detail'])}")
    data = root.add(f"dataset   manifest sha256 {marked(row['manifest'])}")
    for part in row["ranges"]:
        data.add(f"{marked(part['topic'])}/{part['partition']} offsets [{part['start']}, {part['stop']})")
    return root
