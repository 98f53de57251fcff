"""`rillfold auto-lora`: an adapter for tools that nobody has data of."""

from __future__ import annotations

import asyncio
import sys
from codecs import BOM_UTF8
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import msgspec

from processors.synthetic.definition import EXAMPLE, ToolDefinition, UnusableTool
from rillfold.cli.terminal import live
from rillfold.cli.terminal.answers import as_json, say_json
from rillfold.cli.terminal.given import COMPANY, MOST
from rillfold.cli.terminal.plain import plain
from schemas.errors import Stop

if TYPE_CHECKING:
    from gpu_workers.train.lines import Report
    from processors.synthetic.checks import Judge
    from processors.synthetic.generator import Writer
    from rillfold.auto_lora.config import TrainingConfig

SELF = "base"
"""As a writer: the base model itself."""


@click.command("auto-lora")
@click.option("--check", is_flag=True, help="Say what this machine lacks for it; exit 1 where it lacks something.")
@click.option("--train", is_flag=True, help="Make data, train, measure, and make the next data by the mistakes.")
@click.option(
    "--tools",
    "file",
    type=click.Path(path_type=Path, dir_okay=False),
    help="A JSON file: a list of tools. See --example.",
)
@click.option("--example", type=click.Path(path_type=Path, dir_okay=False), help="Write such a file, and end.")
@click.option("--examples", type=click.IntRange(1, 100_000), help="Of the first iteration. Default: 240.")
@click.option("--iterations", type=click.IntRange(1, 100), default=3, show_default=True, help="At most.")
@click.option("--model-path", metavar="NAME|FOLDER", help="The base model. Default: RILLFOLD_BASE_MODEL.")
@click.option("--epochs", type=click.IntRange(1, 1000), help="So often is all learned from. Default: 1.")
@click.option("--seed", type=click.IntRange(0, MOST), default=0, show_default=True)
@click.option(
    "--out", type=click.Path(path_type=Path, file_okay=False), default=Path("lora_adapters"), show_default=True
)
@click.option("--writer", metavar="URL|base", help="Words requests: an OpenAI-compatible endpoint, or the base itself.")
@click.option("--writer-model", default="default", show_default=True)
@click.option("--judge", metavar="URL", help="Judges what was made, after the rules: an OpenAI-compatible endpoint.")
@click.option("--judge-model", default="default", show_default=True)
@click.option("--kafka", is_flag=True, help="Into the log of RILLFOLD_BOOTSTRAP_SERVERS; its training workers train.")
@click.option("--company", type=COMPANY, default="auto-lora", show_default=True, help="Whose events these are.")
@as_json("The figures as JSON.")
def auto_lora(check: bool, train: bool, example: Path | None, iterations: int, as_json: bool, **told: Any) -> None:
    """Make an adapter for the tools of a file, with no data given."""
    if example is not None:
        return _write_example(example)
    if not check and not train:
        raise click.UsageError("Say --check, --train or both: what is missing for it, or the adapter itself.")
    config = _config(told)
    if check:
        _check(config, told["out"], as_json)
    if train:
        _train(config, iterations, as_json, told)
    return None


def _config(told: dict[str, Any]) -> TrainingConfig:
    from rillfold.auto_lora.config import TrainingConfig

    given = {
        "model_name": told["model_path"],
        "num_synthetic_examples": told["examples"],
        "num_epochs": told["epochs"],
        "seed": told["seed"],
        "company": told["company"],
    }
    return TrainingConfig(**{name: value for name, value in given.items() if value is not None})


def _check(config: TrainingConfig, out: Path, as_json: bool) -> None:
    from rillfold.auto_lora.dependencies import DependencyChecker

    checked = DependencyChecker(config, out).check()
    if as_json:
        say_json({"ok": checked.ok, "findings": checked.findings})
    else:
        for each in checked.findings:
            found = f"{each.found}. {each.remedy}" if each.remedy else each.found
            click.echo(plain(f"{each.state:8}{each.what:12} {found}"))
    if not checked.ok:
        sys.exit(1)


def _train(config: TrainingConfig, iterations: int, as_json: bool, told: dict[str, Any]) -> None:
    from rillfold.auto_lora.creator import AutoLoRACreator

    tools = _tools(told["file"])
    with live.phases(piped=True) as tell:
        creator = AutoLoRACreator(
            config,
            told["out"],
            writer=_writer(told["writer"], told["writer_model"], config),
            judge=_judge(told["judge"], told["judge_model"]),
            kafka=told["kafka"],
            say=lambda line: click.echo(plain(line), err=as_json),
            on_training=_shown(tell),
        )
        for tool in tools:
            creator.add_tool(tool)
        try:
            folder, metrics = asyncio.run(creator.create_adapter(iterations))
        except KeyboardInterrupt:
            click.echo(f"Broken off. What was made before stays in {told['out']}.", err=True)
            sys.exit(130)
    if as_json:
        say_json({"adapter": str(folder), **metrics})


def _shown(tell: Callable[[str, int, int, str], None]) -> Callable[[int, Report], None]:
    def shown(number: int, report: Report) -> None:
        note = "" if report.loss is None else f"loss {report.loss:.3f}"
        tell(f"iteration {number}: {report.phase}", report.step, report.steps, note)

    return shown


def _writer(name: str | None, model: str, config: TrainingConfig) -> Writer | None:
    if name is None:
        return None
    from rillfold.auto_lora.writers import BaseWriter, HttpWriter

    return BaseWriter(config) if name == SELF else HttpWriter(name, model, top_p=config.top_p)


def _judge(url: str | None, model: str) -> Judge | None:
    if url is None:
        return None
    from rillfold.auto_lora.writers import HttpCheck

    return HttpCheck(url, model)


def _tools(file: Path | None) -> list[ToolDefinition]:
    if file is None:
        raise UnusableTool(
            "No tools were named: --tools FILE, a JSON list. `--example tools.json` writes one to begin with."
        )
    try:
        given = file.read_bytes().removeprefix(BOM_UTF8)
    except OSError as error:
        raise UnusableTool(f"{file} cannot be read: {error.strerror}. --tools names a file, a JSON list.") from error
    try:
        return msgspec.json.decode(given, type=list[ToolDefinition])
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise UnusableTool(
            f"{file} is no list of tools in UTF-8: {error}. `rillfold auto-lora --example tools.json` shows one."
        ) from error


def _write_example(file: Path) -> None:
    try:
        with file.open("xb") as opened:
            opened.write(msgspec.json.format(msgspec.json.encode([EXAMPLE]), indent=2) + b"\n")
    except OSError as error:
        raise Stop(f"{file} was not written: {error.strerror}. Name a new file in a folder that is there.") from error
    click.echo(plain(f"{file}: one tool. Describe yours so, then: rillfold auto-lora --train --tools {file}"))
