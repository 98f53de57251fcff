"""`rillfold train` and `retrain`: ask for an adapter, and watch it come."""

from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import Any, TypeVar

import click
import msgspec

from processors.dataset.turns import SECOND
from processors.training.admit import NotAdmitted, plain_settings
from processors.training.settings import METHOD_NAMES
from projections.lora_adapters import Adapter
from projections.training_runs import TRAINING_RUNS, Run
from rillfold.cli.adapters.trained import TrainedVersion, trained
from rillfold.cli.adapters.watch import leave, until_ended
from rillfold.cli.company.registered import doubt_in_log
from rillfold.cli.terminal.answers import as_json, say, say_json
from rillfold.cli.terminal.given import ADAPTER, COMPANY, ROLE
from rillfold.cli.terminal.plain import plain
from rillfold.event_log import first, in_log
from rillfold.registry import NoAdapter, find
from rillfold.settings import from_env
from schemas.errors import Stop
from schemas.topics import TopicNames
from schemas.training import TrainingRequested
from streams.fold.view import View
from streams.log.outgoing import to_outgoing
from streams.log.port import EventLog

Ask = Callable[[TrainingRequested], Awaitable[None]]
Found = TypeVar("Found")


class NotTrained(Stop):
    """A run that ended without an adapter."""


@click.command()
@click.option("--company", type=COMPANY, required=True)
@click.option("--role", type=ROLE, default="default", show_default=True)
@click.option("--base-model", help="A name of RILLFOLD_BASE_MODELS. Default: RILLFOLD_BASE_MODEL.")
@click.option("--method", default="lora", show_default=True)
@click.option("--set", "overrides", multiple=True, metavar="NAME=VALUE", help="A training setting, such as steps=30.")
@click.option("--wait", is_flag=True, help="Stay until the run ends, and show how it goes.")
@as_json()
def train(
    company: str, role: str, base_model: str | None, method: str, overrides: Sequence[str], wait: bool, as_json: bool
) -> None:
    """Ask for an adapter from all that COMPANY has given up to now. A training worker must be running.

    Exit code 1 with --wait: the run ended without an adapter, and says why. Without --wait it only says that it was
    asked; `rillfold runs show RUN` shows what came of it.
    """
    given = msgspec.json.encode(_settings(overrides), order="sorted").decode()
    base = from_env().base_name(base_model)
    request = TrainingRequested(**first(company), role=role, method=method, base_model=base, settings=given)
    if isinstance(refusal := plain_settings(request, METHOD_NAMES), NotAdmitted):
        raise click.UsageError(f"{refusal.reason}: {refusal.detail}")

    async def wanted(log: EventLog, names: TopicNames, ask: Ask) -> TrainedVersion | None:
        await ask(request)
        return await trained(log, names, request, await _outcome(log, names, request)) if wait else None

    doubt_in_log(company, nothing=False)
    done = _wanted(wanted)
    if as_json:
        say_json({"run": request.id, **(done.facts() if done else {})})
        return
    say({"run": request.id, **(done.told() if done else {})})
    if done and done.remedy:
        click.echo(plain(done.remedy))


@click.command()
@click.argument("adapter", type=ADAPTER)
@click.option("--until", type=click.Choice(["now"]), help="Take everything up to now: gives the next version.")
@click.option("--measure/--no-measure", default=True, help="Evaluate before and after, as the first run did.")
@as_json()
def retrain(adapter: str, until: str | None, measure: bool, as_json: bool) -> None:
    """Train ADAPTER (company/role, or company/role@2) again, from the same offset ranges: the same bytes come out."""

    async def again(log: EventLog, names: TopicNames, ask: Ask) -> tuple[Adapter, Run]:
        old = await find(log, names, adapter)
        request = await _repeated(log, names, adapter, old, until is not None, measure)
        await ask(request)
        return old, await _outcome(log, names, request)

    old, run = _wanted(again)
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
        settings=_as_it_was(asked.settings, None if until_now else rule_of(old), measure),
        ranges=() if until_now else old.ranges,
    )


def _wanted(work: Callable[[EventLog, TopicNames, Ask], Awaitable[Found]]) -> Found:
    """Ctrl-C ends the watching, and says how to end the run."""
    asked: list[TrainingRequested] = []

    async def ask(log: EventLog, names: TopicNames, request: TrainingRequested) -> None:
        await log.append([to_outgoing(request, names)])
        asked.append(request)

    try:
        return in_log(lambda log, names: work(log, names, partial(ask, log, names)))
    except KeyboardInterrupt:
        leave(asked)


async def _outcome(log: EventLog, names: TopicNames, request: TrainingRequested) -> Run:
    run = await until_ended(log, names, request)
    if run.status != "completed":
        raise NotTrained(f"run {run.run} was {run.status}: {run.reason}. {run.detail}")
    return run


def rule_of(adapter: Adapter) -> int:
    """By which rule its rows were chosen: the newest one may choose others. One that names none is older than that."""
    try:
        settings = msgspec.json.decode(adapter.identity).get("settings", {})
        return int(settings.get("rule", SECOND))
    except (msgspec.DecodeError, AttributeError, TypeError, ValueError):
        return SECOND


def _as_it_was(settings: str, rule: int | None, measure: bool) -> str:
    """Without a rule the newest. An evaluation changes nothing of the bytes, where it does not say when a run ends."""
    said = {name: value for name, value in msgspec.json.decode(settings).items() if name != "rule"}
    if rule is not None:
        said["rule"] = rule
    if not measure and not said.get("patience"):
        said |= {"evaluation_rows": 0} | ({"measure_every": 0} if said.get("measure_every") else {})
    return msgspec.json.encode(said, order="sorted").decode()


def _settings(overrides: Sequence[str]) -> dict[str, Any]:
    """A name with a dot is a field of a setting: select.agents=["sales"]."""
    given: dict[str, Any] = {}
    for text in overrides:
        name, value = _override(text)
        place, (*above, field) = given, name.split(".")
        for each in above:
            place = place.setdefault(each, {})
            if not isinstance(place, dict):
                raise click.BadParameter(f"{text!r}: {each} is given as {place!r} already, which has no fields.")
        if field in place:
            raise click.BadParameter(f"{text!r}: {name} is given already. Say it once.")
        place[field] = value
    return given


def _override(text: str) -> tuple[str, object]:
    """A value is JSON where it can be, text otherwise."""
    name, equals, value = text.partition("=")
    if not equals:
        raise click.BadParameter(f"{text!r} is not NAME=VALUE")
    try:
        return name, msgspec.json.decode(value)
    except msgspec.DecodeError:
        return name, value
