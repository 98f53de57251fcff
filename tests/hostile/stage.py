"""The stage: every worker as a real process over the suite's servers, one hostile company and one innocent one."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from uuid import uuid4

import httpx
import psutil

from gpu_workers.adapters.store import FolderStore
from rillfold.embedded.children import stop_all
from rillfold.embedded.ports import free_port
from rillfold.embedded.state import Endpoints
from rillfold.processes import COMMANDS, started
from schemas.topics import TopicNames
from streams.log.partitioner import partition_of
from tests.hostile.tool import ToolServer, tool_server
from tests.support.workbench import Workbench, make_workbench
from tests.support.worker import WorkerProcess

ACME = "acme"
PARTITIONS = 4


def neighbour(of: str, name: str) -> str:
    """A company whose records lie in the same partitions: what stops at one of its records stops the other's too."""
    wanted = partition_of(of.encode(), PARTITIONS)
    return next(n for n in (f"{name}{i or ''}" for i in range(99)) if partition_of(n.encode(), PARTITIONS) == wanted)


MALLORY = neighbour(ACME, "mallory")


class Ended(AssertionError):
    """A process is not what it was."""


class Cast:
    """The workers. Nobody starts one again: whoever ends stays ended."""

    def __init__(self, data: Path, environment: Mapping[str, str]) -> None:
        self._workers = {
            name: WorkerProcess(name, COMMANDS[name], environment, data / "logs") for name in started(reacting=False)
        }
        self._began: dict[str, float] = {}

    def start(self) -> None:
        for worker in self._workers.values():
            worker.start()
        for name, worker in self._workers.items():
            self._began[name] = psutil.Process(worker.until_ready().pid).create_time()

    def ended(self) -> dict[str, str]:
        """Whoever is not the process that was started, and its last words."""
        return {name: _last_words(worker) for name, worker in self._workers.items() if not self._same(name, worker)}

    def last_words(self) -> list[str]:
        return [f"    {name}: {_last_words(worker)}" for name, worker in self._workers.items()]

    def _same(self, name: str, worker: WorkerProcess) -> bool:
        try:
            return worker.alive and psutil.Process(worker.pid).create_time() == self._began[name]
        except psutil.NoSuchProcess:
            return False

    def stop(self) -> None:
        stop_all([worker.child for worker in self._workers.values() if worker.alive])


def _last_words(worker: WorkerProcess) -> str:
    return " / ".join(worker.said().strip().splitlines()[-3:])[-600:]


@dataclass
class Stage:
    root: Path
    names: TopicNames
    servers: Endpoints
    cast: Cast
    bench: Workbench
    tools: ToolServer
    api: str
    serve: str
    keys: dict[str, str] = field(default_factory=dict)
    canaries: dict[str, str] = field(default_factory=dict)
    """What only acme knows. None of it may stand in an answer to anybody else."""
    hidden: str = field(default_factory=lambda: f"hidden{uuid4().hex[:12]}")
    """What only mallory knows: whoever is hostile has secrets too."""
    broken: str = ""

    @property
    def data(self) -> Path:
        return self.root / "data"

    @property
    def role(self) -> str:
        return self.canaries["role"]

    @property
    def model(self) -> str:
        """The base, as /v1 calls it."""
        return self.bench.base.name

    def http(self, who: str | None) -> httpx.AsyncClient:
        headers = {"Authorization": f"Bearer {self.keys[who]}"} if who else {}
        return httpx.AsyncClient(base_url=self.api, headers=headers, trust_env=False, timeout=60)

    def listeners(self) -> dict[str, str]:
        """Where the workers answer about themselves."""
        return {told.stem: json.loads(told.read_text())["url"] for told in (self.data / "run").glob("*.json")}


@contextmanager
def open_stage(servers: Endpoints) -> Iterator[Stage]:
    """Processes and files. What the two companies own is brought by `tests.hostile.checks.furnished`."""
    with TemporaryDirectory(prefix="rillfold-hostile-", ignore_cleanup_errors=True) as name, tool_server() as tools:
        root, names = Path(name), TopicNames(f"h{uuid4().hex[:8]}-")
        bench = make_workbench(root / "bench")
        bench.store = FolderStore(root / "data" / "adapters")
        ports = {"api": free_port(), "serve": free_port()}
        cast = Cast(root / "data", _environment(root, names, servers, bench, ports))
        urls = {door: f"http://127.0.0.1:{port}" for door, port in ports.items()}
        stage = Stage(root, names, servers, cast, bench, tools, urls["api"], urls["serve"])
        stage.canaries = {what: f"canary{uuid4().hex[:12]}" for what in ("role", "text", "memory", "tool", "token")}
        _keepsakes(stage)
        try:
            yield stage
        finally:
            cast.stop()


def _keepsakes(stage: Stage) -> None:
    """Files that nobody has business with: in the data folder, beside it, and where a careless path would lead."""
    for place in ("data/keepsakes/a", "data/keepsakes/b/c", "data/training", "data", ".", "outside"):
        (stage.root / place).mkdir(parents=True, exist_ok=True)
        (stage.root / place / "keepsake.txt").write_text(f"{place} {stage.canaries['text']}")


def _environment(
    root: Path, names: TopicNames, servers: Endpoints, bench: Workbench, ports: Mapping[str, int]
) -> dict[str, str]:
    settings = {
        "PROVIDER": "external",
        "BOOTSTRAP_SERVERS": servers.bootstrap_servers,
        "POSTGRES_DSN": str(servers.postgres_dsn),
        "TOPIC_PREFIX": names.prefix,
        "DATA_DIR": str(root / "data"),
        "CACHE_DIR": str(root / "bench" / "cache"),
        "BASE_MODEL": str(bench.base),
        "BASE_MODELS": json.dumps({bench.base.name: str(bench.base)}),
        "API_PORT": str(ports["api"]),
        "SERVE_PORT": str(ports["serve"]),
        "SERVE_THREADS": "1",
        "SERVE_ROWS": "8",
        "TRAIN_THREADS": "1",
        "ALLOW_PRIVATE_TOOLS": "true",
        # What is sent here is to be judged, not to be put off.
        "COMPANY_REQUESTS": "500",
        "COMPANY_RATE": "5000",
        "COMPANY_BYTES": str(16 << 30),
        "COMPANY_PROMPTS": "100",
    }
    return {f"RILLFOLD_{name}": value for name, value in settings.items()}
