"""The composition root: settings in, the parts that a process is made of out."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING

from gpu_workers.adapters.port import AdapterStore
from gpu_workers.adapters.store import FolderStore
from gpu_workers.bases.before_torch import settle
from gpu_workers.bases.files import Progress, silent
from rillfold.adapter_keys import adapter_keys
from rillfold.app.installed import Installed, installed
from rillfold.event_log import event_log, read_model
from rillfold.http.keys import ApiKeys
from rillfold.http.operator import operator_of
from rillfold.settings import Settings
from schemas.errors import Stop
from schemas.topics import TopicNames
from streams.bridge.lookups import Lookups
from streams.bridge.secrets import FileSecrets
from streams.bridge.tools import Tools
from streams.errors import ToolsBehind
from streams.fairness.turns import Turns
from streams.history.places import Places
from streams.log.kafka.producer import Producer
from streams.log.port import EventLog

if TYPE_CHECKING:
    import httpx

    from gpu_workers.serve.engines.embedded import EmbeddedEngine
    from streams.read_model.reads import Reads
    from streams.tracking.mlflow import Mlflow


LOCAL = "file://"
READINGS = 4
"""Of one company at once, each with a consumer of its own at the broker."""
TOOLS_SECONDS = 5.0
"""So long a request waits for the tools that the log holds."""


@dataclass(frozen=True)
class Services:
    """What the HTTP API works with."""

    settings: Settings
    installed: Installed
    log: EventLog
    producer: Producer
    tools: Tools
    secrets: FileSecrets
    keys: ApiKeys
    reads: Reads
    models: httpx.AsyncClient | None
    """The serving worker's HTTP routes, where one is known."""
    lookups: Lookups
    """Names of tools' hosts, in bounded time."""
    readings: Turns = field(default_factory=lambda: Turns(READINGS))
    """Requests that read the log, by company."""
    checks: Turns = field(default_factory=lambda: Turns(1))
    """Schemas that are read beside the loop, by company: there are few threads, and each is everybody's."""
    uploads: Turns = field(default_factory=lambda: Turns(1))
    """Files on their way into the log, by company: what stands in it is read by everybody."""

    @property
    def names(self) -> TopicNames:
        return self.settings.topic_names()


def secret_store(settings: Settings) -> FileSecrets:
    return FileSecrets(settings.data_dir / "secrets")


def to_models(url: str, headers: dict[str, str] | None = None) -> httpx.AsyncClient:
    """One connection a question: a kept one may end in the moment that the next goes out on it. How many at once: the
    entry's limits say."""
    import httpx  # the API alone pays for it, as for what reads Postgres

    limits = httpx.Limits(max_connections=None, max_keepalive_connections=0)
    return httpx.AsyncClient(base_url=url, headers=headers, trust_env=False, limits=limits)


@asynccontextmanager
async def services(settings: Settings) -> AsyncIterator[Services]:
    from streams.read_model.reads import ANSWER_SECONDS

    there = installed(settings)
    names, bearer = settings.topic_names(), {"Authorization": f"Bearer {operator_of(settings).token}"}
    async with (
        event_log(settings) as log,
        read_model(settings, ANSWER_SECONDS) as reads,
        to_models(settings.address("serve"), bearer) as models,
    ):
        tools = Tools(log, names)
        # A longer log is read on while the API serves: what needs tools says so till then.
        with suppress(ToolsBehind):
            await tools.catch_up_within(TOOLS_SECONDS)
        try:
            yield Services(
                settings=settings,
                installed=there,
                log=log,
                producer=Producer(log, names),
                tools=tools,
                secrets=secret_store(settings),
                keys=ApiKeys.of(settings.data_dir),
                reads=reads,
                models=models,
                lookups=Lookups(),
            )
        finally:
            await tools.close()


def places(settings: Settings) -> Places:
    """Where whose records were seen in the log, for datasets."""
    return Places(settings.data_dir.absolute() / "places")


def artifact_store(settings: Settings) -> AdapterStore:
    """A folder, or what a URL names, with copies of what was asked for in the cache."""
    keys, told = adapter_keys(settings), settings.adapter_store
    if told is None or "://" not in told:
        return FolderStore(settings.data_dir / "adapters" if told is None else Path(told), keys)
    if told.startswith(LOCAL):
        return FolderStore(Path(told.removeprefix(LOCAL)), keys)
    from gpu_workers.adapters.remote import RemoteStore
    from gpu_workers.adapters.remote_files import RemoteFiles

    files = RemoteFiles(told)
    copies = settings.cache_dir / "adapters" / sha256(files.url.encode()).hexdigest()[:16]
    return RemoteStore(files, FolderStore(copies), keys)


@asynccontextmanager
async def mlflow(settings: Settings) -> AsyncIterator[Mlflow]:
    """The one that the settings name."""
    import httpx

    from streams.tracking.mlflow import Mlflow

    if settings.mlflow_url is None:
        raise Stop("No MLflow is named: set RILLFOLD_MLFLOW_URL, such as http://10.0.0.7:5000.")
    token, user = settings.mlflow_token, settings.mlflow_username
    headers = {"Authorization": f"Bearer {token}"} if token else None
    basic = httpx.BasicAuth(user, settings.mlflow_password or "") if user and not token else None
    try:
        trust = httpx.create_ssl_context()  # SSL_CERT_FILE and SSL_CERT_DIR; of proxies the client below knows nothing
    except OSError as error:
        raise Stop(f"The authorities of SSL_CERT_FILE cannot be read: {error}. Name a file of certificates.") from error
    async with httpx.AsyncClient(
        base_url=settings.mlflow_url, headers=headers, auth=basic, verify=trust, trust_env=False
    ) as client:
        yield Mlflow(client, settings.topic_prefix)


@asynccontextmanager
async def engine(settings: Settings, progress: Progress = silent) -> AsyncIterator[EmbeddedEngine]:
    """Reads the base model: seconds."""
    settle()
    from gpu_workers.serve.engines.start import EngineSetup, embedded  # torch: only the process that serves pays for it

    serving = EngineSetup.of(
        settings.serve_dtype,
        settings.serve_threads,
        settings.serve_rows,
        capacity=settings.serve_adapters,
        company_adapters=settings.serve_company_adapters,
        company_waiting=settings.serve_company_waiting,
        company_tokens=settings.serve_company_tokens,
        memory=settings.serve_memory,
        gpu_share=settings.serve_gpu_share,
        public=Path(settings.serve_public) if settings.serve_public else None,
    )
    name = settings.base_name()
    async with embedded(
        settings.bases()[name], settings.cache_dir, serving, artifact_store(settings), progress, name
    ) as running:
        yield running
