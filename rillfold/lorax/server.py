"""One engine with its agents in a thread of its own, with an event loop of its own: whoever asks may be on any loop, on
a new one for each call, or on none."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Coroutine
from concurrent.futures import Future
from enum import StrEnum
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import msgspec

from gpu_workers.bases.before_torch import settle
from rillfold import wiring
from rillfold.lorax.agents import AgentsEngine
from rillfold.lorax.config import LoRAxConfig
from rillfold.lorax.errors import LoRAxState
from rillfold.lorax.listening import listening
from rillfold.lorax.roles import LoRAxAdapterRegistry
from rillfold.settings import Settings, from_env

PATIENCE = 30.0
LAST_SECONDS = 5.0
"""For those that the engine's end has failed to hear of it."""
Result = TypeVar("Result")


class Phase(StrEnum):
    STOPPED = "stopped"
    STARTING = "starting"
    RUNNING = "running"
    STOPPING = "stopping"


class Open(NamedTuple):
    """What is there while it runs. Only its own loop touches it."""

    loop: asyncio.AbstractEventLoop
    registry: LoRAxAdapterRegistry
    agents: AgentsEngine
    url: str
    leave: asyncio.Event


class LoRAxServer:
    """`start`, ask, `stop`: all of them block, and any thread may call them. A server that is started again knows no
    roles: they are registered with the engine that they are tried on."""

    def __init__(self, config: LoRAxConfig, settings: Settings | None = None) -> None:
        self.config = config
        self.settings = config.over(settings or from_env())
        self._lock = threading.Lock()
        self._phase = Phase.STOPPED
        self._open: Open | None = None
        self._ended: Future[None] = Future()
        self._patience = PATIENCE

    @property
    def phase(self) -> Phase:
        return self._phase

    @property
    def url(self) -> str:
        """Where OpenAI clients find it."""
        return self._running().url

    def start(self) -> None:
        """Reads the base model, seconds, and listens on the port."""
        with self._lock:
            if self._phase is not Phase.STOPPED:
                raise LoRAxState(f"The LoRAx server is {self._phase} already; stop it before it is started again.")
            self._phase, self._ended = Phase.STARTING, Future()
        opened: Future[Open] = Future()
        threading.Thread(target=self._work, args=(opened, self._ended), name="lorax", daemon=True).start()
        try:
            running = opened.result()
        except BaseException:
            self._phase = Phase.STOPPED
            raise
        with self._lock:
            self._open, self._phase = running, Phase.RUNNING

    def stop(self, patience: float = PATIENCE) -> None:
        """Lets what is under way finish, so many seconds; what is left then fails by name, as does what comes later."""
        with self._lock:
            running = self._running()
            self._open, self._phase, self._patience = None, Phase.STOPPING, patience
            running.loop.call_soon_threadsafe(running.leave.set)
        try:
            self._ended.result()
        finally:
            self._phase = Phase.STOPPED

    def register(self, role: str, path: str | Path) -> Future[Any]:
        return self.call(lambda server: server.registry.register(role, path))

    def call(self, work: Callable[[Open], Coroutine[Any, Any, Result]]) -> Future[Result]:
        """Runs it on the server's own loop. Cancelling what comes back cancels it there."""
        with self._lock:
            running = self._running()
            return asyncio.run_coroutine_threadsafe(work(running), running.loop)

    def _running(self) -> Open:
        if self._open is None:
            raise LoRAxState(f"The LoRAx server is {self._phase}: call start_lorax_server first.")
        return self._open

    def _work(self, opened: Future[Open], ended: Future[None]) -> None:
        try:
            asyncio.run(self._serve(opened))
            ended.set_result(None)
        except BaseException as error:
            (ended if opened.done() else opened).set_exception(error)

    async def _serve(self, opened: Future[Open]) -> None:
        _keep_to(self.config.gpu_memory_utilization)
        async with wiring.engine(self.settings) as engine:
            own_word = msgspec.structs.replace(self.settings, adapter_keys=None)  # a folder that its operator names
            registry = LoRAxAdapterRegistry(engine, wiring.artifact_store(own_word))
            agents = AgentsEngine(engine, registry, self.config.max_concurrent_requests)
            async with listening(agents, self.settings) as url:
                running = Open(asyncio.get_running_loop(), registry, agents, url, asyncio.Event())
                opened.set_result(running)
                await running.leave.wait()
                agents.shut()
                await agents.emptied(self._patience)
        await agents.emptied(LAST_SECONDS)


def _keep_to(share: float) -> None:
    settle()
    from gpu_workers.bases.device import Device  # torch: only who serves pays for it

    Device.best().keep_to(share)
