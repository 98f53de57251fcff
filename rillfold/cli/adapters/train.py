"""`rillfold train` and `rillfold retrain`: ask for an adapter, and watch it come."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import click

from rillfold.cli.terminal.plain import plain
from schemas.errors import Stop

if TYPE_CHECKING:
    from projections.lora_adapters import Adapter
    from projections.training_runs import Run
    from schemas.training import TrainingRequested
    from streams.log.port import EventLog


class NoAdapter(Stop):
    """An adapter that the log does not know."""


class NotTrained(Stop):
    """A run that ended without an adapter."""


@click.command()
@click.option("--company", required=True)
@click.option("--role", default="default", show_default=True)
@click.option("--base-model", help="A name of RILLFOLD_BASE_MODELS. Default: RILLFOLD_BASE_MODEL.")
@click.option("--method", default="lora", show_default=True)
@click.option("--set", "overrides", multiple=True, metavar="NAME=VALUE", help="A training setting, such as steps=30.")
@click.option("--wait", is_flag=True, help="Stay until the run ends, and show how it goes.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object for machines.")
def train(
    company: str, role: str, base_model: str | None, method: str, overrides: Sequence[str], wait: bool, as_json: bool
) -> None:
    """Ask for an adapter from all that COMPANY has given up to now. A training worker must be running."""
    import msgspec

    from rillfold.settings import from_env

    given = msgspec.json.encode(dict(_override(text) for text in overrides), order="sorted").decode()
    base = from_env().base_name(base_model)
    request = _request(company, role=role, method=method, base_model=base, settings=given)
    asyncio.run(_ask(request, wait, as_json))


@click.command()
@click.argument("adapter")
@click.option("--until", type=click.Choice(["now"]), help="Take everything up to now: gives the next version.")
@click.option("--measure/--no-measure", default=True, help="Evaluate before and after, as the first run did.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object for machines.")
def retrain(adapter: str, until: str | None, measure: bool, as_json: bool) -> None:
    """Train ADAPTER (company/role, or company/role@2) again, from the same offset ranges: the same bytes come out."""
    asyncio.run(_again(adapter, until is not None, measure, as_json))


async def _ask(request: TrainingRequested, wait: bool, as_json: bool) -> None:
    from rillfold.event_log import event_log
    from rillfold.settings import from_env

    async with event_log(from_env()) as log:
        await _send(log, request)
        if not wait:
            _tell({"run": request.id}, as_json)
            return
        run = await _outcome(log, request)
        _tell({"run": request.id, "adapter": run.adapter, "sha256": run.sha256, "seconds": run.seconds}, as_json)


async def _again(name: str, until_now: bool, measure: bool, as_json: bool) -> None:
    from projections.training_runs import TRAINING_RUNS
    from rillfold.event_log import event_log
    from rillfold.settings import from_env
    from streams.fold.view import View

    settings = from_env()
    async with event_log(settings) as log:
        old = await _find(log, name)
        asked = (await View(log, settings.topic_names(), TRAINING_RUNS).catch_up()).get(f"{old.company}/{old.run}")
        if asked is None:
            raise NoAdapter(f"{name} names run {old.run!r}, and {old.company} asked for none of that name.")
        request = _request(
            old.company,
            role=asked.role,
            method=asked.method,
            base_model=settings.base_name(asked.base_model),
            settings=asked.settings if measure else _unmeasured(asked.settings),
            ranges=() if until_now else old.ranges,
        )
        await _send(log, request)
        run = await _outcome(log, request)
        same = run.sha256 == old.sha256
        _tell({"adapter": name, "sha256": run.sha256, "was": old.sha256, "identical": same, "run": run.run}, as_json)
        if not same and not until_now:
            raise NotTrained(f"{name}: the same ranges gave other bytes. Compare the identity of both runs.")


def _request(company: str, **fields: Any) -> TrainingRequested:
    from rillfold.wiring import now
    from schemas.training import TrainingRequested

    run = str(uuid4())
    return TrainingRequested(id=run, company=company, time=now(), correlation=run, **fields)


async def _send(log: EventLog, request: TrainingRequested) -> None:
    from rillfold.settings import from_env
    from streams.log.outgoing import to_outgoing

    await log.append([to_outgoing(request, from_env().topic_names())])


async def _outcome(log: EventLog, request: TrainingRequested) -> Run:
    """Follows the run in the log until it ended."""
    from projections.training_runs import ENDED, TRAINING_RUNS
    from rillfold.cli.terminal.live import phases
    from rillfold.settings import from_env
    from streams.fold.view import View

    view = View(log, from_env().topic_names(), TRAINING_RUNS)
    with phases() as tell:
        while True:
            run = (await view.catch_up())[f"{request.company}/{request.id}"]
            if run.status in ENDED:
                break
            tell(run.phase or run.status, run.step, run.steps, "" if run.loss is None else f"loss {run.loss:.3f}")
            await asyncio.sleep(0.3)
    if run.status != "completed":
        raise NotTrained(f"run {run.run} was {run.status}: {run.reason}. {run.detail}")
    return run


async def _find(log: EventLog, name: str) -> Adapter:
    from projections.lora_adapters import LORA_ADAPTERS
    from rillfold.settings import from_env
    from streams.fold.view import View

    adapter, _, version = name.partition("@")
    rows = (await View(log, from_env().topic_names(), LORA_ADAPTERS).catch_up()).values()
    found = [row for row in rows if row.adapter == adapter and version in ("", str(row.version))]
    if not found:
        known = ", ".join(sorted({row.adapter for row in rows})) or "none yet"
        raise NoAdapter(f"No adapter {name!r} is ready; known: {known}. Train one with `rillfold train`.")
    return max(found, key=lambda row: row.version)


def _unmeasured(settings: str) -> str:
    """An evaluation changes nothing of the bytes."""
    import msgspec

    return msgspec.json.encode({**msgspec.json.decode(settings), "evaluation_rows": 0}, order="sorted").decode()


def _override(text: str) -> tuple[str, object]:
    """A value is JSON where it can be, text otherwise."""
    import msgspec

    name, equals, value = text.partition("=")
    if not equals:
        raise click.BadParameter(f"{text!r} is not NAME=VALUE")
    try:
        return name, msgspec.json.decode(value)
    except msgspec.DecodeError:
        return name, value


def _tell(facts: dict[str, Any], as_json: bool) -> None:
    import msgspec

    if as_json:
        click.echo(msgspec.json.encode(facts).decode())
        return
    for name, value in facts.items():
        click.echo(plain(f"{name:10} {value}"))
