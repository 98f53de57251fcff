"""`rillfold cost`: many agents on one model against a model each, measured here, in euros at prices that you state."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import click
import msgspec

from rillfold.cli.terminal.answers import as_json, say_json
from rillfold.cli.terminal.given import MOST, Number
from rillfold.cli.terminal.live import phases
from rillfold.cli.terminal.plain import plain
from rillfold.cli.terminal.table import say_table
from rillfold.cli.terminal.verbs import Verbs
from rillfold.lorax.measure import CostPlan, Footprint, apart, one_engine, separate_models
from rillfold.lorax.price import GIB, Prices, bills
from rillfold.settings import from_env

SHOWN = Prices()
HEADS = ("agents", "on", "how", "GiB", "tok/s", "tok/cpu-s", "GPUs", "€/h GPU", "€/h GiB", "€/M tok")


@click.group(cls=Verbs)
def cost() -> None:
    """Say what serving costs."""


PRICE = Number(0, MOST, min_open=True)


@cost.command()
@click.option("--agents", default=100, show_default=True, type=click.IntRange(1, 10_000), help="How many of them.")
@click.option("--models", default=4, show_default=True, type=click.IntRange(1, 64), help="Separate models to load.")
@click.option("--rank", default=16, show_default=True, type=click.IntRange(1, 64), help="Of each adapter.")
@click.option("--tokens", default=16, show_default=True, type=click.IntRange(1, 512), help="Of each answer, at most.")
@click.option("--gpu-hour", default=SHOWN.gpu_hour, show_default=True, type=PRICE, help="Euros for an hour of a GPU.")
@click.option("--gpu-gib", default=SHOWN.gpu_gib, show_default=True, type=PRICE, help="Its memory.")
@click.option("--gib-hour", default=SHOWN.gib_hour, show_default=True, type=PRICE, help="Euros for an hour of one GiB.")
@as_json()
def compare(agents: int, models: int, rank: int, tokens: int, as_json: bool, **prices: float) -> None:
    """N agents on one engine against a model each: memory, tokens a second and euros.

    Loads both, asks both, and says which figures are measured and which follow from them.
    """
    counts = sorted({n for n in (1, 2, models) if n <= models})
    plan = CostPlan(settings=from_env(), agents=agents, models=tuple(counts), rank=rank, tokens=tokens)
    with phases() as tell:
        tell(f"{agents} agents on one engine", 0, 2, "")
        engine = apart(one_engine, plan)
        tell(f"{models} separate models", 1, 2, "")
        separate = apart(separate_models, plan)
    answer = _answer(plan, engine, separate, Prices(**prices))
    if as_json:
        say_json(answer)
    else:
        _show(answer)


def _answer(plan: CostPlan, engine: Footprint, separate: Footprint, prices: Prices) -> dict[str, Any]:
    every = bills(engine.of, separate.of, plan.agents, prices)
    ours, theirs = every[-2:]
    return {
        "agents": plan.agents,
        **{name: getattr(engine, name) for name in ("base", "device", "dtype", "threads")},
        "base_bytes": engine.base_bytes,
        "adapter_bytes": engine.adapter_bytes,
        "prices": msgspec.structs.asdict(prices),
        "assumptions": _assumptions(plan, engine, separate),
        "bills": [msgspec.structs.asdict(bill) for bill in every],
        "memory_ratio": round(theirs.bytes / ours.bytes, 2),
        "memory_ratio_measured": ours.measured and theirs.measured,
    }


def _assumptions(plan: CostPlan, engine: Footprint, separate: Footprint) -> list[str]:
    told = [
        f"Bytes are those that a process took on this machine's {engine.device}, in {engine.dtype}, beyond its "
        "libraries: weights, adapters, KV, buffers. Half precision has about half of the weights.",
        f"Adapters have rank {plan.rank} on all seven modules and random numbers; greedy answers of "
        f"{plan.tokens} tokens at most, {plan.questions} questions at once or one for each agent.",
        "A separate model is a copy of the base's weights with nothing added, as if its adapter were merged: the "
        "fastest that a model of one's own can be. All of them share one process, which spares them a runtime each.",
        "What is not measured lies on the straight line through what was; its speed is the last that was measured, "
        "since as many processors serve more models. On a busy machine tokens by processor seconds say more.",
        "GPUs are counted by memory alone: so many as hold the bytes, at a share of 0.9, no model and no engine split "
        "over two; none where one has no room.",
        "Euros for a million tokens are the memory's price at this machine's speed; prices are the caller's.",
    ]
    for way, footprint in (("one engine", engine), ("separate models", separate)):
        if footprint.full:
            told.append(f"Memory ended at {footprint.of[-1].agents} agents of {way}: more were not loaded.")
    return told


def _show(answer: dict[str, Any]) -> None:
    click.echo(plain(f"{answer['base']} on {answer['device']}, {answer['dtype']}, {answer['threads']} threads"))
    rows: list[Sequence[object]] = []
    for bill in answer["bills"]:
        speeds = [f"{bill[f'tokens_per_{unit}']:.0f}" for unit in ("s", "cpu_s")]
        euros = [f"{bill[f'euros_{of}']:.3g}" for of in ("gpu_hour", "memory_hour", "million_tokens")]
        size, told = f"{bill['bytes'] / GIB:.2f}", "measured" if bill["measured"] else "follows"
        rows.append((bill["agents"], bill["way"], told, size, *speeds, bill["gpus"] or "none", *euros))
    say_table(HEADS, rows)
    click.echo(f"{answer['agents']} separate models take {answer['memory_ratio']} times the memory of one engine.")
    for line in answer["assumptions"]:
        click.echo(plain(f"- {line}"))
