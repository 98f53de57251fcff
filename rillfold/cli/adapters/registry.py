"""`rillfold adapters resolve`, `download`, `subscribe`, `publish` and `sign`: adapters between installations."""

from __future__ import annotations

import signal
from collections.abc import Awaitable, Callable
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import click
import msgspec

from rillfold.cli.company.registered import doubt_in_log
from rillfold.cli.terminal import live
from rillfold.cli.terminal.answers import as_json, say, say_json
from rillfold.cli.terminal.given import ADAPTER, COMPANY, ROLE
from rillfold.cli.terminal.plain import plain
from rillfold.event_log import in_log
from rillfold.settings import Settings, from_env

if TYPE_CHECKING:
    from rillfold.registry import AdapterRegistry, BaseHash, Resolved
    from schemas.topics import TopicNames
    from streams.log.port import EventLog

Found = TypeVar("Found")


@click.command()
@click.argument("adapter", type=ADAPTER, metavar="COMPANY/ROLE[@VERSION]")
@as_json()
def resolve(adapter: str, as_json: bool) -> None:
    """Say where ADAPTER lies, under which hash, and who signed it; its newest version where none is named."""
    _tell(_registry(lambda it: it.resolve(adapter)), as_json)


@click.command()
@click.argument("adapter", type=ADAPTER, metavar="COMPANY/ROLE[@VERSION]")
@click.argument("folder", type=click.Path(path_type=Path, file_okay=False))
@as_json()
def download(adapter: str, folder: Path, as_json: bool) -> None:
    """Write ADAPTER to FOLDER, with card, statement and signature, once all of it is what the log says."""
    files = _registry(lambda it: it.download(adapter, folder))
    if as_json:
        say_json({"files": [str(file) for file in files]})
        return
    for file in files:
        click.echo(plain(f"wrote      {file}"))


@click.command()
@click.option("--company", type=COMPANY, help="Of this company alone.")
@click.option("--role", type=ROLE, help="For this role alone.")
@click.option("--into", type=click.Path(path_type=Path, file_okay=False), default=Path("adapters"), show_default=True)
@as_json("One JSON object a line.")
def subscribe(company: str | None, role: str | None, into: Path, as_json: bool) -> None:
    """Fetch and verify what is promoted, as it comes, until Ctrl-C; the next time goes on from there."""
    from rillfold.subscription import AdapterSubscription

    async def follow(log: EventLog, _names: TopicNames) -> None:
        subscription = AdapterSubscription(log, from_env(), into, company, role, say=_warn)
        async for arrived in subscription.arriving():
            told = {"adapter": f"{arrived.adapter}@{arrived.version}", "folder": str(arrived.folder)}
            if as_json:
                say_json({**told, "sha256": arrived.sha256})
            else:
                click.echo(plain("{adapter:32} {folder}".format(**told)))

    signal.signal(signal.SIGTERM, signal.default_int_handler)
    with suppress(KeyboardInterrupt):
        doubt_in_log(company, True)
        _warn(f"following {company or '*'}/{role or '*'} into {into}, until Ctrl-C")
        in_log(follow)


def _warn(line: str) -> None:
    click.echo(plain(f"rillfold: {line}"), err=True)


@click.command()
@click.argument("folder", type=click.Path(path_type=Path))
@click.argument("adapter", type=ADAPTER, metavar="COMPANY/ROLE")
@click.option("--base", help="A name of RILLFOLD_BASE_MODELS. Default: as its manifest says, or RILLFOLD_BASE_MODEL.")
@click.option("--promote", is_flag=True, help="Let it answer for its role at once. Without, it answers by its number.")
@as_json()
def publish(folder: Path, adapter: str, base: str | None, promote: bool, as_json: bool) -> None:
    """Take the adapter that PEFT saved to FOLDER as the next version of COMPANY/ROLE, signed by this installation."""
    from rillfold.registry import company_of

    company_of(adapter)  # before the base is read, which takes its time
    known = _base(folder, base, from_env())
    _tell(_registry(lambda it: it.publish(folder, adapter, known, promote)), as_json)


@click.command()
@click.argument("adapter", type=ADAPTER, metavar="COMPANY/ROLE[@VERSION]")
@as_json()
def sign(adapter: str, as_json: bool) -> None:
    """Sign ADAPTER with the key of this installation: one of an older release, or one that others signed."""
    _tell(_registry(lambda it: it.sign(adapter)), as_json)


def _registry(work: Callable[[AdapterRegistry], Awaitable[Found]]) -> Found:
    from rillfold.registry import AdapterRegistry

    async def done(log: EventLog, _names: TopicNames) -> Found:
        return await work(AdapterRegistry(log, from_env()))

    return in_log(done)


def _base(folder: Path, told: str | None, settings: Settings) -> BaseHash | None:
    """None: the folder's manifest says it. All of a base is read, and the adapter has its place in it."""
    from gpu_workers.adapters.origin import facts_in
    from gpu_workers.adapters.store import must_hold_files

    must_hold_files(folder)
    if told is None and facts_in(folder) is not None:
        return None
    from gpu_workers.bases.before_torch import settle

    settle()
    from gpu_workers.adapters.brought import must_fit
    from gpu_workers.bases.files import name_of
    from gpu_workers.bases.identity import identify
    from gpu_workers.bases.load import prepare
    from rillfold.registry import BaseHash

    name = settings.base_name(told)
    with live.phases() as tell:

        def told_of(what: str, done: int, of: int) -> None:
            tell(what, done, of, "")

        place = prepare(settings.bases().get(name, name), settings.cache_dir, told_of)
        identity = identify(name_of(name), place, "float32", told_of)
    must_fit(folder, place, identity)
    return BaseHash(identity.name, identity.sha256)


def _tell(found: Resolved, as_json: bool) -> None:
    if as_json:
        say_json(found)
        return
    facts = msgspec.to_builtins(found)
    signature = f"{facts.pop('signature')} {facts.pop('signed_by')}{facts.pop('why')}".strip()
    say({"adapter": f"{facts.pop('adapter')}@{facts.pop('version')}", **facts, "signature": signature})
