"""Which broker and which database the suite runs on: those that are named, containers, or the embedded ones."""

from __future__ import annotations

import gc
import os
import signal
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Literal, NamedTuple

import yaml

from rillfold.embedded import state
from rillfold.embedded.jars import resolve
from rillfold.embedded.ports import free_port
from rillfold.embedded.stack import running
from rillfold.embedded.state import Endpoints
from rillfold.embedded.warm import start_cache
from rillfold.settings import Settings, from_env

COMPOSE = Path(__file__).parents[2] / "docker-compose.yml"
ENGINE_SECONDS = 2


class Choice(NamedTuple):
    servers: Literal["named", "containers", "embedded"]
    why: str
    endpoints: Endpoints | None = None


def choose(settings: Settings, engine: Callable[[], str | None]) -> Choice:
    """`engine` says why no Docker engine answers, and None where one does. It is asked only if that matters."""
    if settings.bootstrap_servers is not None:
        endpoints = Endpoints(settings.bootstrap_servers, settings.postgres_dsn)
        return Choice("named", f"RILLFOLD_BOOTSTRAP_SERVERS is {endpoints.bootstrap_servers}", endpoints)
    silent = engine()
    if silent is None:
        return Choice("containers", "a Docker engine answers")
    return Choice("embedded", f"no Docker engine answers: {silent}")


@cache
def chosen() -> Choice:
    return choose(from_env(), docker_is_silent)


def docker_is_silent() -> str | None:
    """Where it cannot connect, the client leaves its socket to the collector, which must not count as our leak."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        silent = _asked()
        gc.collect()
    return silent


def _asked() -> str | None:
    from docker.errors import DockerException
    from testcontainers.core.docker_client import DockerClient

    try:
        DockerClient(timeout=ENGINE_SECONDS).client.close()
    except DockerException as error:
        return str(error).splitlines()[0]
    return None


@contextmanager
def at_hand() -> Iterator[Endpoints]:
    """For one session of tests."""
    match chosen().servers:
        case "named":
            named = chosen().endpoints
            assert named is not None
            yield named
        case "containers":
            with in_containers() as endpoints:
                yield endpoints
        case "embedded":
            short_lived_java()
            # Not below pytest's own folder: that is closed to the user under which a root's Postgres runs.
            with TemporaryDirectory(prefix="rillfold-stack-") as folder:
                Path(folder).chmod(0o755)
                with running(Path(folder), postgres=True) as endpoints:
                    yield endpoints
                    throw_away(Path(folder))


def throw_away(folder: Path) -> None:
    """Nobody reads that log again: thousands of partitions closed in order take the broker more than half a minute."""
    told = state.read(folder)
    if told is not None:
        os.kill(told.children["kafka"], signal.SIGKILL)


def short_lived_java() -> None:
    """A broker that lives for minutes never earns back what its optimising compiler costs.

    The start-up cache is made before, by a Java as everybody has it: it outlives the suite.
    """
    settings = from_env()
    start_cache(resolve("kafka", settings.cache_dir, repository=settings.maven_repository), settings.cache_dir)
    os.environ.setdefault("JAVA_TOOL_OPTIONS", "-XX:TieredStopAtLevel=1")


@contextmanager
def in_containers() -> Iterator[Endpoints]:
    """Images and settings are those of docker-compose.yml; ports are free ones, and nothing is kept."""
    from testcontainers.core.container import DockerContainer
    from testcontainers.core.docker_client import DockerClient
    from testcontainers.core.wait_strategies import ExecWaitStrategy, LogMessageWaitStrategy

    services: Mapping[str, Any] = yaml.safe_load(COMPOSE.read_text())["services"]
    # A broker says itself where it is to be reached, so its port must be known before it starts.
    port = free_port()
    place = f"{DockerClient().host()}:{port}"
    kafka = (
        DockerContainer(services["kafka"]["image"])
        .with_envs(**services["kafka"]["environment"] | reached_at(place))
        .with_bind_ports(9092, port)
        .waiting_for(LogMessageWaitStrategy("Kafka Server started"))
    )
    postgres = (
        DockerContainer(services["postgres"]["image"])
        .with_envs(**services["postgres"]["environment"])
        .with_exposed_ports(5432)
        # By TCP: the server that the image starts to set itself up listens on a socket file only.
        .waiting_for(ExecWaitStrategy(["pg_isready", "--username", "postgres", "--host", "127.0.0.1"]))
    )
    with kafka, postgres:
        database = f"{postgres.get_container_host_ip()}:{postgres.get_exposed_port(5432)}"
        yield Endpoints(place, f"postgresql://postgres@{database}/postgres")


def reached_at(place: str) -> dict[str, str]:
    """From outside of the container there; inside, by the broker itself, on the second listener."""
    return {"KAFKA_ADVERTISED_LISTENERS": f"OUTSIDE://{place},INSIDE://localhost:29092"}
