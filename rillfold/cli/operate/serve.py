"""`rillfold serve`: adapters from folders over HTTP, without a log."""

import asyncio
from pathlib import Path

import click
from prometheus_client import CollectorRegistry

from gpu_workers.adapters.origin import base_of, facts_in
from gpu_workers.adapters.store import must_hold_files
from gpu_workers.errors import ArtifactRefused
from gpu_workers.refused import Refused
from gpu_workers.serve.port import AdapterKey, AdapterSpec, InferenceEngine
from rillfold import wiring
from rillfold.http.operator import token_file
from rillfold.settings import Settings, from_env
from rillfold.v1.figures import EngineMetrics
from rillfold.workers.beside import Door, until_it_stops
from rillfold.workers.run import world
from rillfold.workers.watched import listened
from schemas.errors import Stop
from schemas.words import ADAPTER, fits


@click.command()
@click.option("--adapter", "adapters", multiple=True, metavar="NAME=FOLDER", help="An adapter to serve; repeat it.")
@click.option(
    "--tools-in-prompt/--no-tools-in-prompt",
    default=None,
    help="How these adapters were trained; without it an artifact's manifest says, and others have them.",
)
def serve(adapters: tuple[str, ...], tools_in_prompt: bool | None) -> None:
    """Serve the base model, and adapters from folders, at /v1 until Ctrl-C. No Kafka is needed."""
    specs = [_spec(given, tools_in_prompt) for given in adapters]
    with world():
        asyncio.run(_run(from_env(), specs))


def _spec(given: str, tools_in_prompt: bool | None) -> AdapterSpec:
    name, equals, path = given.partition("=")
    if not equals or not name or not path:
        raise Stop(f"--adapter {given}: write NAME=FOLDER, with the folder of a PEFT adapter.")
    if not fits(ADAPTER, name):
        raise Stop(f"--adapter {given}: {name!r} can name no adapter: {ADAPTER.says}.")
    folder = Path(path)
    try:
        must_hold_files(folder)
    except ArtifactRefused as error:
        raise Stop(f"--adapter {name}: {error}") from error
    facts = facts_in(folder)
    trained_so = facts.tools_in_prompt if facts else True
    return AdapterSpec(
        key=AdapterKey(name, 1),
        folder=folder,
        base_sha256=base_of(folder),
        tools_in_prompt=trained_so if tools_in_prompt is None else tools_in_prompt,
    )


async def _run(settings: Settings, specs: list[AdapterSpec]) -> None:
    async with wiring.engine(settings) as engine:
        for spec in specs:
            await _read_now(engine, spec)
        registry = CollectorRegistry()
        registry.register(EngineMetrics(engine))
        with listened(settings, "serve", lambda: None if engine.alive() else "the engine has ended", registry) as url:
            door = Door(engine, settings)
            await door.beside(_open(settings, engine, door, url))


async def _read_now(engine: InferenceEngine, spec: AdapterSpec) -> None:
    try:
        await engine.load(spec)
    except Refused as error:
        raise Stop(f"--adapter {spec.key.name}={spec.folder}: {error}") from error


async def _open(settings: Settings, engine: InferenceEngine, door: Door, figures: str) -> None:
    names = ", ".join([engine.model, *(key.name for key in engine.known())])
    click.echo(f"{door.url}/v1 serves {names}; {figures}/metrics counts")
    token = "RILLFOLD_SERVE_TOKEN" if settings.serve_token else token_file(settings.data_dir)
    click.echo(f"It takes the operator's token as its key ({token}); `rillfold chat --url` finds it by itself.")
    click.echo("ready")
    await until_it_stops(engine)
