"""`rillfold train` and `rillfold retrain`: ask for an adapter, and watch it come."""

import asyncio
from collections.abc import Sequence

import click
import msgspec

from gpu_workers.serve.port import spelled
from projections.lora_adapters import LORA_ADAPTERS, Adapter
from projections.training_runs import ENDED, TRAINING_RUNS, Run
from rillfold.cli.terminal.answers import as_json, say, say_json
from rillfold.cli.terminal.live import phases
from rillfold.event_log import first, in_log
from rillfold.settings import from_env
from schemas.errors import Stop
from schemas.topics import TopicNames
from schemas.training import TrainingRequested
from streams.fold.view import View
from streams.log.outgoing import to_outgoing
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
@as_json()
def train(
    company: str, role: str, base_model: str | None, method: str, overrides: Sequence[str], wait: bool, as_json: bool
) -> None:
    """Ask for an adapter from all that COMPANY has given up to now. A training worker must be running."""
    given = msgspec.json.encode(dict(_override(text) for text in overrides), order="sorted").decode()
    base = from_env().base_name(base_model)
    request = TrainingRequested(**first(company), role=role, method=method, base_model=base, settings=given)

    async def ask(log: EventLog, names: TopicNames) -> Run | None:
        await log.append([to_outgoing(request, names)])
        return await _outcome(log, names, request) if wait else None

    run = in_log(ask)
    done = {"adapter": run.adapter, "sha256": run.sha256, "seconds": run.seconds} if run else {}
    (say_json if as_json else say)({"run": request.id, **done})


@click.command()
@click.argument("adapter")
@click.option("--until", type=click.Choice(["now"]), help="Take everything up to now: gives the next version.")
@click.option("--measure/--no-measure", default=True, help="Evaluate before and after, as the first run did.")
@as_json()
def retrain(adapter: str, until: str | None, measure: bool, as_json: bool) -> None:
    """Train ADAPTER (company/role, or company/role@2) again, from the same offset ranges: the same bytes come out."""

    async def again(log: EventLog, names: TopicNames) -> tuple[Adapter, Run]:
        old = await find(log, names, adapter)
        request = await _repeated(log, names, adapter, old, until is not None, measure)
        await log.append([to_outgoing(request, names)])
        return old, await _outcome(log, names, request)

    old, run = in_log(again)
    same = run.sha256 == old.sha256
    told = {"adapter": adapter, "sha256": run.sha256, "was": old.sha256, "identical": same, "run": run.run}
    (say_json if as_json else say)(told)
    if not same and until is None:
        raise NotTrained(f"{adapter}: the same ranges gave other bytes. Compare the identity of both runs.")


async def _repeated(
    log: EventLog, names: TopicNames, name: str, old: Adapter, until_now: bool, measure: bool
) -> TrainingRequested:
    asked = (await View(log, names, TRAINING_RUNS).catch_up()).get(f"{old.company}/{old.run}")
    if asked is None:
        raise NoAdapter(f"{name} names run {old.run!r}, and {old.company} asked for none of that name.")
    return TrainingRequested(
        **first(old.company),
        role=asked.role,
        method=asked.method,
        base_model=from_env().base_name(asked.base_model),
        settings=asked.settings if measure else _unmeasured(asked.settings),
        ranges=() if until_now else old.ranges,
    )


async def _outcome(log: EventLog, names: TopicNames, request: TrainingRequested) -> Run:
    """Follows the run in the log until it ended."""
    view = View(log, names, TRAINING_RUNS)
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


async def find(log: EventLog, names: TopicNames, name: str) -> Adapter:
    adapter, version = spelled(name)
    rows = (await View(log, names, LORA_ADAPTERS).catch_up()).values()
    found = [row for row in rows if row.adapter == adapter and row.event and version in (None, row.version)]
    if not found:
        known = ", ".join(sorted({row.adapter for row in rows})) or "none yet"
        raise NoAdapter(f"No adapter {name!r} is ready; known: {known}. Train one with `rillfold train`.")
    return max(found, key=lambda row: row.version)


def _unmeasured(settings: str) -> str:
    """An evaluation changes nothing of the bytes."""
    return msgspec.json.encode({**msgspec.json.decode(settings), "evaluation_rows": 0}, order="sorted").decode()


def _override(text: str) -> tuple[str, object]:
    """A value is JSON where it can be, text otherwise."""
    name, equals, value = text.partition("=")
    if not equals:
        raise click.BadParameter(f"{text!r} is not NAME=VALUE")
    try:
        return name, msgspec.json.decode(value)
    except msgspec.DecodeError:
        return name, value
