"""`rillfold adapters`: which versions a company has, which of them answers; to decide that by hand, to fetch one."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import click

from gpu_workers.serve.port import AdapterKey, spelled
from projections.lora_adapters import LORA_ADAPTERS, Adapter
from projections.rollouts import ROLLOUTS, Rollout
from rillfold.cli.adapters.export import export
from rillfold.cli.adapters.registry import download, publish, resolve, sign, subscribe
from rillfold.cli.company.registered import doubt_in_log
from rillfold.cli.terminal.answers import as_json, say, say_json
from rillfold.cli.terminal.given import ADAPTER, COMPANY
from rillfold.cli.terminal.plain import plain
from rillfold.cli.terminal.table import say_table
from rillfold.cli.terminal.verbs import Verbs
from rillfold.event_log import first, in_log
from schemas.adapters import RolloutDecided, company_of
from schemas.errors import Poison
from schemas.topics import TopicNames
from streams.fold.view import View
from streams.log.outgoing import to_outgoing
from streams.log.port import EventLog

HEADINGS = ("adapter", "now", "verdict", "held out", "decided by hand")


class NoSuchVersion(Poison):
    """No version of this number is ready."""


class Versions(NamedTuple):
    """As the log tells of them."""

    adapters: Sequence[Adapter]
    rollouts: Mapping[str, Rollout]

    def rollout(self, adapter: str) -> Rollout:
        return self.rollouts.get(adapter) or ROLLOUTS.initial(adapter)

    def now(self, adapter: Adapter) -> str:
        """What a version is to those who ask."""
        rollout = self.rollout(adapter.adapter)
        if adapter.version == rollout.stable:
            return "answers"
        if rollout.is_withdrawn(adapter.version):
            return "withdrawn"
        return "promoted before" if adapter.version in rollout.promoted else "by its number"


@click.group(cls=Verbs)
def adapters() -> None:
    """Show a company's adapters, decide by hand which version answers; publish, fetch, sign and export them."""


for _verb in (resolve, download, subscribe, publish, sign, export):
    adapters.add_command(_verb)


@adapters.command("list")
@click.argument("company", type=COMPANY)
@as_json("One JSON list.")
def list_(company: str, as_json: bool) -> None:
    """Every version: what the gate said of it, and what it is now."""

    async def look(log: EventLog, names: TopicNames) -> Versions:
        return await _read(log, names, company)

    found = in_log(look)
    if as_json:
        say_json([_facts(found, each) for each in found.adapters])
        return
    if not found.adapters:
        doubt_in_log(company, nothing=True)
        click.echo(plain(f"{company} has no adapter. `rillfold train --company {company} --wait` makes one."), err=True)
        return
    say_table(HEADINGS, [_cells(found, each) for each in found.adapters])


@adapters.command()
@click.argument("version", type=ADAPTER, metavar="COMPANY/ROLE@N")
@click.option("--reason", required=True, help="Why: it stays in the log.")
@as_json()
def promote(version: str, reason: str, as_json: bool) -> None:
    """Let this version answer for its role from now on, whatever the gate said of it."""
    _tell(_decide(version, 100, reason), as_json)


@adapters.command()
@click.argument("version", type=ADAPTER, metavar="COMPANY/ROLE@N")
@click.option("--reason", required=True, help="Why: it stays in the log.")
@as_json()
def withdraw(version: str, reason: str, as_json: bool) -> None:
    """Let this version answer nobody any more. Who was promoted before it answers for the role."""
    _tell(_decide(version, 0, reason), as_json)


def _decide(version: str, percent: int, reason: str) -> Rollout:
    """The decision is in the log when this returns, and what stands after it is read from there."""
    adapter, number = spelled(version)
    if number is None:
        raise click.UsageError(f"{version!r} names no version: write COMPANY/ROLE@N.")
    if not reason.strip():
        raise click.UsageError("--reason is empty: say why, for whoever reads the log later.")
    company = company_of(adapter)
    decision = RolloutDecided(
        **first(company), adapter=adapter, adapter_version=number, percent=percent, reason=reason.strip()
    )

    async def decide(log: EventLog, names: TopicNames) -> Rollout:
        _check(await _read(log, names, company), AdapterKey(adapter, number))
        await log.append([to_outgoing(decision, names)])
        return (await _read(log, names, company)).rollout(adapter)

    return in_log(decide)


def _check(there: Versions, wanted: AdapterKey) -> None:
    known = [AdapterKey(each.adapter, each.version) for each in there.adapters]
    if wanted not in known:
        told = ", ".join(map(str, known)) or "none"
        raise NoSuchVersion(f"No version {wanted} is ready. Ready for {company_of(wanted.name)}: {told}.")


async def _read(log: EventLog, names: TopicNames, company: str) -> Versions:
    ready = (await View(log, names, LORA_ADAPTERS).catch_up()).values()
    own = [row for row in ready if row.company == company and row.event]
    own.sort(key=lambda row: (row.adapter, row.version))
    return Versions(own, await View(log, names, ROLLOUTS).catch_up())


def _tell(rollout: Rollout, as_json: bool) -> None:
    facts = {"adapter": rollout.adapter, "answers": rollout.stable, "withdrawn": list(rollout.withdrawn)}
    if as_json:
        say_json(facts)
        return
    withdrawn = ", ".join(map(str, rollout.withdrawn)) or "none"
    answers = (
        f"version {rollout.stable}"
        if rollout.stable is not None
        else "none: promote one, or ask for one that stands by number"
    )
    say({**facts, "answers": answers, "withdrawn": withdrawn})


def _facts(found: Versions, each: Adapter) -> dict[str, object]:
    return {
        "adapter": each.adapter,
        "version": each.version,
        "ready_at": each.ready_at,
        "evaluation": each.evaluation,
        "promoted": each.promoted,
        "verdict": each.verdict,
        "detail": each.verdict_detail,
        "figures": each.figures,
        "now": found.now(each),
        "decided": _by_hand(found, each),
    }


def _cells(found: Versions, each: Adapter) -> Sequence[str]:
    score = each.evaluation
    return (
        str(AdapterKey(each.adapter, each.version)),
        found.now(each),
        each.verdict,
        f"{score.before:.3f} -> {score.after:.3f}" if score else "",
        _by_hand(found, each),
    )


def _by_hand(found: Versions, each: Adapter) -> str:
    """What was decided of it last, and why."""
    told = [row for row in found.rollout(each.adapter).decisions if row.version == each.version]
    return f"{told[-1].percent} %: {told[-1].reason}" if told else ""
