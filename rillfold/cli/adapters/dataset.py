"""`rillfold dataset`: what a training run would learn from, as files, with the proof that they are the log's."""

from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from functools import reduce
from pathlib import Path
from typing import Any, get_args

import click

from processors.dataset.noticed import Noticed
from processors.dataset.selection import ConversationOrigin, Selection, Taught
from processors.dataset.turns import Manifest
from processors.training.settings import RULE_VERSION
from rillfold.cli.adapters import dataset_files as files
from rillfold.cli.adapters import selected
from rillfold.cli.company.registered import doubt_in_log
from rillfold.cli.terminal.answers import as_json, say_json
from rillfold.cli.terminal.given import AGENT, COMPANY
from rillfold.cli.terminal.plain import plain
from rillfold.cli.terminal.verbs import Verbs
from schemas.errors import Stop
from schemas.topics import BY_NAME
from schemas.training import OffsetRange
from streams.history import replay


class NothingThere(Stop):
    """No record of the company stands in the ranges."""


_NARROWING = (
    click.option("--agent", "agents", type=AGENT, multiple=True, help="Only what this agent answered. Repeat it."),
    click.option(
        "--type", "types", multiple=True, type=click.Choice(get_args(Taught)), help="Only events of this type."
    ),
    click.option(
        "--origin",
        "origins",
        multiple=True,
        type=click.Choice(get_args(ConversationOrigin)),
        help="Only what was made (synthetic), or only what was not.",
    ),
    click.option(
        "--since", metavar="TIME", help="Only what happened from here on, such as 2026-11-01 or 2026-11-01T08:00."
    ),
    click.option("--until", metavar="TIME", help="Only what happened before."),
    click.option("--leave-out", "leave_out", multiple=True, metavar="ENTITY", help="As if the log had never held it."),
    click.option(
        "--app-rule", "rules", multiple=True, metavar="NAME.vN", help="What this rule of an application makes, too."
    ),
    click.option("--outcomes/--no-outcomes", default=True, help="Whether feedback and tools' replies count."),
)


def _narrowing(command: Callable[..., Any]) -> Callable[..., Any]:
    return reduce(lambda decorated, option: option(decorated), reversed(_NARROWING), command)


@click.group(cls=Verbs)
def dataset() -> None:
    """Build training data from the log, or prove that files are what the log gives."""


@dataset.command()
@click.option("--company", type=COMPANY, required=True)
@click.option(
    "--range", "ranges", multiple=True, metavar="[TOPIC:]PARTITION:START:STOP", help="Default: all up to now."
)
@click.option(
    "--tools-from", multiple=True, metavar="PARTITION:START:STOP", help="Read for tools alone. Default: all before."
)
@click.option("--rule", type=click.IntRange(1, RULE_VERSION), default=RULE_VERSION, show_default=True)
@_narrowing
@click.option("--out", type=click.Path(path_type=Path, file_okay=False), required=True, help="Folder for the files.")
@click.option("--parquet", is_flag=True, help="Also as rows.parquet. Needs pyarrow (pip install pyarrow).")
@click.option("--force", is_flag=True, help="Write over another dataset in the folder.")
@as_json("The manifest as JSON.")
def build(
    company: str,
    ranges: Sequence[str],
    tools_from: Sequence[str],
    rule: int,
    out: Path,
    parquet: bool,
    force: bool,
    as_json: bool,
    **narrowed: Any,
) -> None:
    """Replay exact offset ranges of company-data into rows and their manifest."""
    select = _selection(**narrowed)
    if rule < RULE_VERSION and (select != Selection() or parquet or tools_from):
        raise click.UsageError(f"Rule {rule} takes all of a company, as JSON lines: leave selection and --parquet out.")
    before = tuple(map(_range, tools_from)) or None
    wish = files.DatasetWish(company, tuple(map(_range, ranges)), rule, select, before)
    with files.draft(out, parquet) as made:
        manifest, noticed = files.build(wish, made)
        if manifest.rule_version == RULE_VERSION and not manifest.records:
            doubt_in_log(company, nothing=True)
            raise NothingThere(
                f"No record of company {company!r} stands in the ranges: see `rillfold query companies` for its name, "
                f"and whether its events have the key `{company}` or `{company}/...`."
            )
        if noticed:
            selected.must_be_there(noticed)
        files.settle(made, out, manifest, force=force)
    _tell(manifest, noticed, as_json)


@dataset.command()
@click.argument("folder", type=click.Path(path_type=Path, exists=True, file_okay=False))
@click.option("--offline", is_flag=True, help="Look at the files alone, not at the log.")
@as_json("The manifest as JSON.")
def verify(folder: Path, offline: bool, as_json: bool) -> None:
    """Check the rows against the manifest, then build them again from the log and compare."""
    manifest = files.read(folder)
    noticed = None
    if offline:
        files.check_rows(folder, manifest)
    else:
        with files.draft(folder, parquet=False) as made:
            again, noticed = files.build(files.wish_of(manifest), made)
            files.check_again(folder, manifest, made, again)
    _tell(manifest, noticed, as_json)


def _selection(
    agents: Sequence[str],
    types: Sequence[Taught],
    origins: Sequence[ConversationOrigin],
    since: str | None,
    until: str | None,
    leave_out: Sequence[str],
    rules: Sequence[str],
    outcomes: bool,
) -> Selection:
    start, stop = _time(since), _time(until)
    if start is not None and stop is not None and start >= stop:
        raise click.UsageError(f"--since {since} is not before --until {until}: nothing happened in between.")
    return Selection(
        agents=tuple(agents),
        types=tuple(types),
        origins=tuple(origins),
        since=start,
        until=stop,
        outcomes=outcomes,
        leave_out=tuple(leave_out),
        rules=tuple(rules),
    )


def _time(text: str | None) -> int | None:
    """In microseconds. A time without a zone is UTC."""
    if text is None:
        return None
    try:
        at = datetime.fromisoformat(text)
    except ValueError as error:
        raise click.BadParameter(f"{text!r} is no time such as 2026-11-01 or 2026-11-01T08:00:00+01:00") from error
    seconds = (at if at.tzinfo else at.replace(tzinfo=UTC)) - datetime(1970, 1, 1, tzinfo=UTC)
    return (seconds.days * 86_400 + seconds.seconds) * 1_000_000 + seconds.microseconds


def _range(text: str) -> OffsetRange:
    name, _, rest = text.partition(":")
    topic, numbers = (name, rest) if name in BY_NAME else (replay.DATA_TOPIC, text)
    try:
        partition, start, stop = (int(part) for part in numbers.split(":"))
    except ValueError as error:
        raise click.BadParameter(f"{text!r} is not PARTITION:START:STOP, such as 0:0:1200") from error
    return OffsetRange(topic=topic, partition=partition, start=start, stop=stop)


def _tell(manifest: Manifest, noticed: Noticed | None, as_json: bool) -> None:
    if as_json:
        beside = {} if noticed is None else {"noticed": noticed._asdict()}
        say_json({"sha256": manifest.sha256, "manifest": manifest, **beside})
        return
    click.echo(f"manifest {manifest.sha256}")
    click.echo(f"rows     {manifest.rows_sha256}")
    click.echo(f"{manifest.trained} to train on, {manifest.held_out} held out, from {manifest.records} records")
    if manifest.synthetic:
        click.echo(f"{manifest.synthetic} of them were made, and observed nowhere")
    if manifest.bad or manifest.corrected:
        click.echo(f"{manifest.bad} wrong, {manifest.corrected} corrected")
    for line in selected.told(manifest, noticed):
        click.echo(plain(line))
    for part in manifest.ranges:
        click.echo(f"  {part.topic}/{part.partition} [{part.start}, {part.stop})")
