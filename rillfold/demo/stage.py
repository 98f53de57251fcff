"""What the parts of the story share: the running stack, the crew, the companies' tool server, and the figures."""

import asyncio
import json
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rich.console import Console

from rillfold.client import Client
from rillfold.demo.narrator import Narrator
from rillfold.demo.tool_server import ToolServer
from rillfold.embedded.state import Endpoints
from rillfold.settings import Settings
from rillfold.workers.crew import Crew, command_line
from schemas.errors import Stop
from streams.log.port import EventLog

# One machine does everything at once here: what takes longer than this will not come any more.
PATIENCE = 600.0


def own_servers(servers: Endpoints) -> dict[str, str]:
    """The environment of every process of the story: it has its own, whatever a person's environment names."""
    return {
        "RILLFOLD_PROVIDER": "embedded",
        "RILLFOLD_BOOTSTRAP_SERVERS": servers.bootstrap_servers,
        "RILLFOLD_KAFKA_SECURITY": "PLAINTEXT",
        "RILLFOLD_POSTGRES_DSN": str(servers.postgres_dsn),
    }


class NotAsTold(Stop):
    """The story says one thing and the machine did another."""


@dataclass
class Stage:
    narrator: Narrator
    settings: Settings
    endpoints: Endpoints
    crew: Crew
    log: EventLog
    tools: ToolServer
    tokens: dict[str, str]
    urls: dict[str, str]
    api: Client | None = None
    keys: dict[str, str] = field(default_factory=dict)
    adapters: dict[str, dict[str, Any]] = field(default_factory=dict)
    figures: dict[str, str] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)
    produced: dict[str, int] = field(default_factory=dict)
    job: str = ""

    @property
    def console(self) -> Console:
        return self.narrator.console

    @property
    def data_dir(self) -> Path:
        return self.settings.data_dir

    @property
    def client(self) -> Client:
        assert self.api is not None, "the API starts in the first part"
        return self.api

    async def rillfold(self, *arguments: str, given: bytes = b"", codes: tuple[int, ...] = (0,)) -> str:
        """Runs a command as a person would, and shows it."""
        self.console.print(f"[dim]$ rillfold {' '.join(arguments)}[/]", highlight=False, soft_wrap=True)
        line = command_line({"RILLFOLD_DATA_DIR": str(self.data_dir), **own_servers(self.endpoints)}, *arguments)
        pipe = asyncio.subprocess.PIPE
        child = await asyncio.create_subprocess_exec(*line, stdin=pipe, stdout=pipe, stderr=pipe)
        try:
            with self.narrator.live(f"rillfold {arguments[0]}", told=False) as show:
                out, said = await _heard(child, given, show)
        except asyncio.CancelledError:
            child.kill()
            raise
        if child.returncode not in codes:
            raise NotAsTold(f"`rillfold {' '.join(arguments)}` ended with {child.returncode}: {said.strip()}")
        return out.decode()

    async def ask(self, *arguments: str) -> Any:
        return json.loads(await self.rillfold(*arguments, "--json"))

    async def until(self, what: str, look: Callable[[], Awaitable[Any]], every: float = 0.1) -> Any:
        """The first true answer of `look`."""
        until = time.monotonic() + PATIENCE
        while not (found := await look()):
            if time.monotonic() > until:
                raise NotAsTold(f"waited {PATIENCE:.0f} seconds for {what}, in vain")
            await asyncio.sleep(every)
        return found

    def expect(self, truth: bool, what: str) -> None:
        """A line of the story that must hold."""
        if not truth:
            raise NotAsTold(what)
        self.console.print(f"  [green]✓[/] {what}", highlight=False, soft_wrap=True)

    def say(self, text: str) -> None:
        self.console.print(f"  {text}", highlight=False, soft_wrap=True)


async def _heard(child: asyncio.subprocess.Process, given: bytes, show: Callable[[str], None]) -> tuple[bytes, str]:
    """All that a command wrote, on standard output and on standard error; the newest line of the second is shown."""
    assert child.stdin and child.stdout and child.stderr
    said = []

    async def listen(errors: asyncio.StreamReader) -> None:
        async for raw in errors:
            said.append(raw.decode(errors="replace"))
            show(said[-1].strip())

    async def feed(to: asyncio.StreamWriter) -> None:
        with suppress(ConnectionError):  # it ended without reading: its code says why
            to.write(given)
            await to.drain()
        to.close()

    out, _, _ = await asyncio.gather(child.stdout.read(), listen(child.stderr), feed(child.stdin))
    await child.wait()
    return out, "".join(said)
