"""`rillfold evaluate`: how good an adapter is, beside the base model or another adapter, and how sure that is."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import click
import msgspec

from rillfold.cli.terminal import live
from rillfold.cli.terminal.answers import as_json, say_json
from rillfold.cli.terminal.given import COMPANY, FOLDER_OR_ADAPTER, MOST, folder_of
from rillfold.cli.terminal.table import say_table
from rillfold.event_log import in_log
from rillfold.registry import find
from rillfold.settings import Settings, from_env
from rillfold.wiring import artifact_store, places
from schemas.adapters import company_of
from schemas.errors import Stop

if TYPE_CHECKING:
    from gpu_workers.bases.files import BaseIdentity
    from gpu_workers.evaluate.asking import Side
    from gpu_workers.evaluate.written import Metrics
    from processors.dataset.lessons import Row
    from projections.lora_adapters import Adapter
    from schemas.topics import TopicNames
    from streams.log.port import EventLog


class NothingToMeasure(Stop):
    """No row that an adapter could be asked."""


class OtherBase(Stop):
    """An adapter of another base model than the one that it is to be measured on."""


class Measuring(NamedTuple):
    """What the command was told beside the adapter's name."""

    company: str | None
    rows: Path | None
    base: str | None
    against: str | None
    most: int
    judge: str | None
    judge_model: str
    out: Path | None


@click.command()
@click.argument("adapter", type=FOLDER_OR_ADAPTER, metavar="FOLDER|COMPANY/ROLE[@VERSION]")
@click.option("--company", type=COMPANY, help="Whose held-out rows, from the log. Default: the adapter's company.")
@click.option("--rows", type=click.Path(path_type=Path, exists=True, dir_okay=False), help="Rows of `dataset build`.")
@click.option("--base", help="A name of RILLFOLD_BASE_MODELS. Default: the adapter's, or RILLFOLD_BASE_MODEL.")
@click.option(
    "--against",
    type=FOLDER_OR_ADAPTER,
    metavar="FOLDER|COMPANY/ROLE[@VERSION]",
    help="Not the base model, but this adapter.",
)
@click.option("--most", default=60, show_default=True, type=click.IntRange(1, MOST), help="Held-out requests, at most.")
@click.option("--judge", metavar="URL", help="An OpenAI-compatible endpoint, without its /v1, that judges words.")
@click.option("--judge-model", default="default", show_default=True)
@click.option("--out", type=click.Path(path_type=Path, file_okay=False), help="metrics.json, error_analysis.json.")
@as_json("The metrics as JSON.")
def evaluate(
    adapter: str,
    company: str | None,
    rows: Path | None,
    base: str | None,
    against: str | None,
    most: int,
    judge: str | None,
    judge_model: str,
    out: Path | None,
    as_json: bool,
) -> None:
    """Measure ADAPTER on held-out rows, on made-up tools, and on requests that no tool fits."""
    metrics = _measured(adapter, Measuring(company, rows, base, against, most, judge, judge_model, out))
    say_json(metrics) if as_json else _show(metrics)


def _measured(adapter: str, told: Measuring) -> Metrics:
    settings = from_env()
    candidate, of_base = _side(adapter, settings)
    served = None if told.against is None else _side(told.against, settings)[0]
    rows = _rows(adapter, told)
    from gpu_workers.bases.before_torch import settle

    settle()
    from gpu_workers.bases import load
    from gpu_workers.bases.chat import Chat
    from gpu_workers.bases.device import Device
    from gpu_workers.evaluate.asking import Asker
    from gpu_workers.evaluate.judge import HttpJudge
    from gpu_workers.evaluate.measure import CaseSizes, measure
    from gpu_workers.evaluate.told import asked_judge, metrics, wrong_answers
    from gpu_workers.evaluate.written import write

    name = settings.base_name(told.base or of_base)
    device = Device.best(settings.serve_threads or os.cpu_count())
    model, tokenizer, identity = load.load(settings.bases().get(name, name), settings.cache_dir, device, name=name)
    for side in (candidate, served):
        _must_stand_on(identity, side)
    with live.line("evaluate") as tell:
        sizes = CaseSizes(held_out=told.most, words=told.most)
        measured = measure(Asker(model, Chat.of(tokenizer)), rows, candidate, served, sizes, tell)
    said = None if told.judge is None else asked_judge(measured, HttpJudge(told.judge, told.judge_model))
    found = metrics(measured, said)
    if told.out is not None:
        write(told.out, found, wrong_answers(measured))
    return found


def _side(name: str, settings: Settings) -> tuple[Side, str | None]:
    """And the base model that it was trained on, where the log says so."""
    from gpu_workers.adapters.origin import facts_in, fetched
    from gpu_workers.adapters.store import must_hold_files
    from gpu_workers.evaluate.asking import Side

    if folder := folder_of(name):
        must_hold_files(folder)
        facts, row = facts_in(folder), None
    else:
        row = in_log(lambda log, names: _ready(log, names, name))
        folder, facts = fetched(artifact_store(settings), row.sha256, row.company)
    version = row.version if row else None
    return Side(folder, facts is not None and facts.tools_in_prompt, version), row.base_model if row else None


async def _ready(log: EventLog, names: TopicNames, name: str) -> Adapter:
    return await find(log, names, name)


def _must_stand_on(base: BaseIdentity, side: Side | None) -> None:
    """By either hash that it is known by: an adapter of an older release names the older one."""
    from gpu_workers.adapters.origin import base_of

    if side is None or side.folder is None:
        return
    if (trained_on := base_of(side.folder)) in (None, base.sha256, base.weights_sha256):
        return
    raise OtherBase(
        f"{side.folder} was trained on base {trained_on}, and {base.name} is {base.sha256}. Name its own with --base."
    )


def _rows(adapter: str, told: Measuring) -> list[Row]:
    from processors.dataset.lessons import row_of

    if told.rows is not None:
        lines = told.rows.read_bytes()
    elif company := told.company or ("" if folder_of(adapter) else company_of(adapter)):
        lines = _replayed(company)
    else:
        raise NothingToMeasure(f"{adapter} is a folder: say whose rows it is measured on, with --company or --rows.")
    rows = []
    for number, line in enumerate(lines.splitlines(), 1):
        try:
            rows.append(row_of(line))
        except msgspec.MsgspecError as error:
            raise NothingToMeasure(
                f"{told.rows}: line {number} is no row of a dataset ({error}). Give the rows.jsonl of `dataset build`."
            ) from error
    if not any(row.held_out for row in rows):
        raise NothingToMeasure(f"None of {len(rows)} rows is held out. Give rows of more questions: about a fifth are.")
    return rows


def _replayed(company: str) -> bytes:
    """Everything that the company has given up to now: what is held out of it, adapters of no selection were taught."""
    from streams.history import replay

    async def built(log: EventLog, names: TopicNames, rows: Path) -> None:
        with live.line("replay") as tell:
            ranges = await replay.everything_up_to_now(log, names)
            await replay.build(log, names, company, ranges, rows, tell, places=places(from_env()))

    with tempfile.TemporaryDirectory() as folder:
        rows = Path(folder) / "rows.jsonl"
        in_log(lambda log, names: built(log, names, rows))
        return rows.read_bytes()


def _show(metrics: Metrics) -> None:
    against = "base" if metrics.against is None else f"@{metrics.against}"
    rows: list[Sequence[object]] = []
    for each in metrics.suites:
        found = each.difference
        shares = (f"{found.candidate:.3f}", f"{found.served:.3f}")
        apart = f"{found.share:+.3f} (95%: {found.low:+.3f} to {found.high:+.3f})"
        beside = (f"{found.chance:.4f}", f"{each.malformed:.3f}", f"{0.0 if each.ast is None else each.ast:.3f}")
        rows.append((each.suite, found.cases, *shares, apart, *beside))
    say_table(("suite", "cases", "adapter", against, "difference", "by chance", "malformed", "ast"), rows)
    if metrics.quality is not None and metrics.served_quality is not None:
        click.echo(f"{'words (F1)':20} {metrics.quality:8.3f} {metrics.served_quality:8.3f}")
    if metrics.judge is not None:
        click.echo(f"judge: {metrics.judge}")
