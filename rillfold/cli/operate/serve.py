"""`rillfold serve`: adapters from folders over HTTP, without a log."""

import asyncio
from pathlib import Path

import click
from prometheus_client import CollectorRegistry

from gpu_workers.serve.port import AdapterKey, AdapterSpec, InferenceEngine
from rillfold import wiring
from rillfold.http.operator import token_file
from rillfold.settings import Settings, from_env
from rillfold.v1.figures import EngineMetrics
from rillfold.workers.beside import Door, until_it_stops
from rillfold.workers.run import world
from rillfold.workers.watched import listened
from schemas.errors import Stop


@click.command()
@click.option("--adapter", "adapters", multiple=True, metavar="NAME=FOLDER", help="An adapter to serve; repeat it.")
@click.option("--tools-in-prompt/--no-tools-in-prompt", default=True, help="How these adapters were trained.")
def serve(adapters: tuple[str, ...], tools_in_prompt: bool) -> None:
    """Serve the base model, and adapters from folders, at /v1 until Ctrl-C. No Kafka is needed."""
    specs = [_spec(given, tools_in_prompt) for given in adapters]
    with world():
        asyncio.run(_run(from_env(), specs))


def _spec(given: str, tools_in_prompt: bool) -> AdapterSpec:
    name, equals, folder = given.partition("=")
    if not equals or not name or not Path(folder).is_dir():
        raise Stop(f"--adapter {given}: write NAME=FOLDER, with the folder of a PEFT adapter.")
    return AdapterSpec(key=AdapterKey(name, 1), folder=Path(folder), tools_in_prompt=tools_in_prompt)


async def _run(settings: Settings, specs: list[AdapterSpec]) -> None:
    async with wiring.engine(settings) as engine:
        for spec in specs:
            await engine.load(spec)
        registry = CollectorRegistry()
        registry.register(EngineMetrics(engine))
        with listened(settings, "serve", lambda: None if engine.alive() else "the engine has ended", registry) as url:
            await Door(engine, settings).beside(_open(settings, engine, url))


async def _open(settings: Settings, engine: InferenceEngine, figures: str) -> None:
    click.echo(f"http://{settings.serve_host}:{settings.serve_port}/v1 serves {engine.model}; {figures}/metrics counts")
    token = "RILLFOLD_SERVE_TOKEN" if settings.serve_token else token_file(settings.data_dir)
    click.echo(f"It takes the operator's token as its key ({token}); `rillfold chat --url` finds it by itself.")
    click.echo("ready")
    await until_it_stops(engine)
