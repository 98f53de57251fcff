"""What one release does with a data folder, by its commands and its HTTP API alone: those of any age have them."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx

from rillfold.embedded import ports, state
from tests.support import waiting

PATIENCE = 240.0


def until(what: str, look: Callable[[], Any]) -> Any:
    return waiting.until(what, look, PATIENCE, pause=0.2)


class Release:
    """The code of one release at work on the data folder below `root`, where every command of it runs."""

    def __init__(self, python: Path, code: Path, root: Path) -> None:
        self._python, self._code, self._root = python, code, root
        self.data = root / "data"
        self.ports = {door: ports.free_port() for door in ("api", "serve")}
        self._running: dict[str, subprocess.Popen[bytes]] = {}

    def _environment(self) -> dict[str, str]:
        settings = {
            "DATA_DIR": "data",
            "BASE_MODEL": "tiny",
            "TRAIN_THREADS": "1",
            "SERVE_THREADS": "1",
            "SERVE_DTYPE": "float32",
            "ALLOW_PRIVATE_TOOLS": "true",
            "API_PORT": str(self.ports["api"]),
            "SERVE_PORT": str(self.ports["serve"]),
        }
        named = {f"RILLFOLD_{name}": value for name, value in settings.items()}
        return {**os.environ, **named, "PYTHONPATH": str(self._code)}

    def _line(self, *words: str) -> list[str]:
        return [str(self._python), "-P", "-m", "rillfold", *words]

    def rillfold(self, *words: str, given: bytes = b"", code: int = 0) -> bytes:
        done = subprocess.run(
            self._line(*words), cwd=self._root, env=self._environment(), input=given, capture_output=True, check=False
        )
        assert done.returncode == code, f"{words}: {done.returncode}, {done.stderr.decode()}"
        return done.stdout

    def says(self, *words: str, code: int = 0) -> Any:
        return json.loads(self.rillfold(*words, "--json", code=code))

    def start(self, name: str, *words: str, said: str = "ready") -> None:
        """Returns when it has said that it works."""
        self.data.mkdir(exist_ok=True)
        log = self._root / f"{name}.log"
        with log.open("wb") as out:
            self._running[name] = subprocess.Popen(
                self._line(*words), cwd=self._root, env=self._environment(), stdout=out, stderr=subprocess.STDOUT
            )
        until(f"{words}: {log}", lambda: said in log.read_text() or self._ended(name, log))

    def _ended(self, name: str, log: Path) -> bool:
        assert self._running[name].poll() is None, log.read_text()
        return False

    def stop(self, *names: str) -> None:
        for name in names:
            self._running[name].send_signal(signal.SIGTERM)
        for name in names:
            self._running.pop(name).wait(PATIENCE)

    def stop_all(self) -> None:
        self.stop(*(name for name in self._running if name != "up"))
        self.stop(*self._running)

    def endpoints(self) -> state.Endpoints:
        return until("the stack", lambda: state.read(self.data)).endpoints

    def key(self) -> str:
        return (self.data / "api" / "admin.key").read_text().strip()

    def ask(self, method: str, path: str, given: Any = None, key: str = "") -> Any:
        answer = self.send(method, path, given, key)
        assert answer.status_code < 300, answer.text
        return answer.json()

    def send(self, method: str, path: str, given: Any = None, key: str = "") -> httpx.Response:
        headers = {"Authorization": f"Bearer {key or self.key()}"}
        url = f"http://127.0.0.1:{self.ports['api']}{path}"
        return httpx.request(method, url, json=given, headers=headers, trust_env=False, timeout=PATIENCE)
