"""The composition root: settings in, the parts that a process is made of out."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import httpx

from gpu_workers.adapters.store import FolderStore
from gpu_workers.bases.before_torch import settle
from gpu_workers.bases.files import Progress, silent
from gpu_workers.serve.port import InferenceEngine
from gpu_workers.serve.worker import AHEAD, InferenceWorker
from gpu_workers.train.parent import KeptChild
from gpu_workers.train.place import Place
from gpu_workers.train.worker import Trainer
from processors.admit import Bounds
from rillfold.embedded.state import attach
from rillfold.event_log import event_log
from rillfold.http.keys import ApiKeys
from rillfold.http.operator import operator_of
from rillfold.settings import Settings
from schemas.topics import TopicNames
from streams.bridge.lookups import Lookups
from streams.bridge.secrets import FileSecrets, SecretStore
from streams.bridge.tool_bridge import ToolBridge
from streams.bridge.tools import Tools
from streams.errors import ToolsBehind
from streams.log.kafka.producer import Producer
from streams.log.port import EventLog
from streams.read_model.reads import ANSWER_SECONDS, Reads

if TYPE_CHECKING:
    from gpu_workers.serve.engines.embedded import EmbeddedEngine


TOOLS_SECONDS = 5.0
"""So long a request waits for the tools that the log holds."""


def now() -> int:
    """Microseconds since the Unix epoch."""
    return time.time_ns() // 1_000


@dataclass(frozen=True)
class Services:
    """What the HTTP API works with."""

    settings: Settings
    log: EventLog
    producer: Producer
    tools: Tools
    secrets: SecretStore
    keys: ApiKeys
    reads: Reads
    models: httpx.AsyncClient | None
    """The serving worker's HTTP routes, where one is known."""
    lookups: Lookups
    """Names of tools' hosts, in bounded time."""

    @property
    def names(self) -> TopicNames:
        return self.settings.topic_names()

    def first(self, company: str) -> dict[str, Any]:
        """The envelope of an event that begins a story."""
        event = str(uuid4())
        return {"id": event, "company": company, "time": now(), "correlation": event}


def secret_store(settings: Settings) -> SecretStore:
    return FileSecrets(settings.data_dir / "secrets")


@asynccontextmanager
async def services(settings: Settings) -> AsyncIterator[Services]:
    endpoints, names = attach(settings), settings.topic_names()
    rows = Reads(endpoints.postgres_dsn, settings.read_model(), ANSWER_SECONDS)
    async with event_log(settings) as log, rows as reads:
        tools = Tools(log, names)
        # A longer log is read on while the API serves: what needs tools says so till then.
        with suppress(ToolsBehind):
            await tools.catch_up_within(TOOLS_SECONDS)
        served = settings.serve_url or f"http://{settings.serve_host}:{settings.serve_port}"
        bearer = {"Authorization": f"Bearer {operator_of(settings).token}"}
        models = httpx.AsyncClient(base_url=served, headers=bearer, trust_env=False)
        try:
            yield Services(
                settings=settings,
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
            if models is not None:
                await models.aclose()


@asynccontextmanager
async def bridge(settings: Settings) -> AsyncIterator[ToolBridge]:
    async with event_log(settings) as log:
        yield ToolBridge(
            log,
            settings.topic_names(),
            secret_store(settings),
            now,
            private=settings.allow_private_tools,
            patience=settings.tool_patience_seconds,
        )


def artifact_store(settings: Settings) -> FolderStore:
    return FolderStore(settings.data_dir / "adapters")


@asynccontextmanager
async def engine(settings: Settings, progress: Progress = silent) -> AsyncIterator[EmbeddedEngine]:
    """Reads the base model: seconds."""
    settle()
    from gpu_workers.serve.engines.start import Serving, embedded  # torch: only the process that serves pays for it

    serving = Serving.of(
        settings.serve_dtype,
        settings.serve_threads,
        settings.serve_rows,
        capacity=settings.serve_adapters,
        company_adapters=settings.serve_company_adapters,
        company_waiting=settings.serve_company_waiting,
    )
    name = settings.base_name()
    async with embedded(
        settings.bases()[name], settings.cache_dir, serving, artifact_store(settings), progress, name
    ) as running:
        yield running


@asynccontextmanager
async def inference(settings: Settings, running: InferenceEngine) -> AsyncIterator[InferenceWorker]:
    async with event_log(settings) as log:
        yield InferenceWorker(log, settings.topic_names(), running, now, at_once=AHEAD * settings.serve_rows)


@asynccontextmanager
async def trainer(settings: Settings) -> AsyncIterator[Trainer]:
    place = Place(
        worker=f"{socket.gethostname()}/{os.getpid()}",
        scratch=settings.data_dir.absolute() / "training",
        cache=settings.cache_dir,
        threads=settings.train_threads or os.cpu_count() or 1,
        clock=now,
        bases=settings.bases(),
        bounds=Bounds(
            texts=settings.train_max_texts, seconds=settings.train_max_seconds, rows_bytes=settings.train_max_bytes
        ),
    )
    place.check_bases()
    async with event_log(settings) as log, KeptChild() as train:
        yield Trainer(log, settings.topic_names(), artifact_store(settings), place, train)
