"""A llama.cpp server in a process of its own: the operator's `llama-server`, or the one of the package xllamacpp."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryFile
from typing import IO, Any, NoReturn

import httpx

from gpu_workers.errors import LlamaCppDied, LlamaCppFailed

HOST = "127.0.0.1"
PROGRAM = "llama-server"
LOOK_SECONDS, STOP_SECONDS = 0.02, 5.0
MAGIC = b"GGUF"
TAIL = 1 << 16
"""Bytes of what it said that are looked at for why it ended."""


@dataclass(frozen=True)
class LlamaSetup:
    """What it is started with."""

    model: Path
    adapters: tuple[Path, ...] = ()
    llama_cpp: Path | None = None
    """llama-server, or a folder that holds it; None: xllamacpp."""
    port: int = 0
    """0: any free one."""
    context: int = 4096
    """Tokens of one question and its answer."""
    rows: int = 1
    """Questions answered at once."""
    threads: int = 0
    """0: as many as there are cores."""
    seconds: float = 300.0
    """So long it may take until it answers."""
    float32: bool = False
    """Keys, values and attention too, which llama.cpp has in 16 bits: logits are within 0.00001 instead of 0.005."""


class LlamaServer:
    """Started once somebody asks, and again where it ended."""

    def __init__(self, setup: LlamaSetup) -> None:
        self.setup = setup
        self._process: subprocess.Popen[bytes] | None = None
        self._said: IO[bytes] | None = None
        self._http: httpx.Client | None = None

    @property
    def pid(self) -> int | None:
        return self._process.pid if self._process and self._process.poll() is None else None

    def start(self) -> None:
        """Returns when it is healthy. Does nothing where it runs."""
        if self.pid is not None:
            return
        self.stop()
        for file in (self.setup.model, *self.setup.adapters):
            _must_be_gguf(file)
        port = _free(self.setup.port)
        command = _command(self.setup, port)
        self._said = TemporaryFile()  # noqa: SIM115 - as long as the process
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=self._said, stderr=self._said)
        self._http = httpx.Client(base_url=f"http://{HOST}:{port}", timeout=self.setup.seconds, trust_env=False)
        try:
            self._healthy()
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        if self._http is not None:
            self._http.close()
        if self._process is not None:
            _ended(self._process)
        if self._said is not None:
            self._said.close()
        self._process = self._said = self._http = None

    def ask(self, method: str, path: str, body: object = None) -> Any:
        """What it answers, as JSON. Starts it where it does not run."""
        self.start()
        assert self._http is not None
        try:
            answer = self._http.request(method, path, json=body)
        except httpx.TransportError as error:
            self._gone(error)
        if answer.status_code == httpx.codes.NOT_FOUND:
            raise LlamaCppFailed(f"this llama.cpp knows no {path}: it is too old. Take one of this year.")
        if answer.is_error:
            raise LlamaCppFailed(f"llama.cpp answered {answer.status_code} to {path}: {answer.text[:300]}")
        return answer.json()

    def _healthy(self) -> None:
        assert self._http is not None and self._process is not None
        until = time.monotonic() + self.setup.seconds
        while self._process.poll() is None:
            try:
                if self._http.get("/health", timeout=self.setup.seconds).is_success:
                    return
            except httpx.TransportError:
                pass
            if time.monotonic() > until:
                raise LlamaCppFailed(f"llama.cpp did not answer within {self.setup.seconds:g} s: {self._last()}")
            time.sleep(LOOK_SECONDS)
        last = self._last()
        if "invalid argument" in last:
            raise LlamaCppFailed(f"{self.setup.llama_cpp} is too old: {last}. Take a llama.cpp of this year.")
        files = ", ".join(map(str, (self.setup.model, *self.setup.adapters)))
        raise LlamaCppFailed(
            f"llama.cpp ended with code {self._process.returncode} as it loaded {files}: {last}. "
            "Export them again, the adapters from the base that they were trained on."
        )

    def _gone(self, error: Exception) -> NoReturn:
        """What does not answer is ended, so that the next question finds one that does."""
        assert self._process is not None
        try:
            code = self._process.wait(0 if isinstance(error, httpx.TimeoutException) else STOP_SECONDS)
            ended = f"ended with code {code} while it was asked"
        except subprocess.TimeoutExpired:
            ended = f"did not answer within {self.setup.seconds:g} s"
        last = self._last()
        self.stop()
        raise LlamaCppDied(f"llama.cpp {ended}: {last or error}. Ask again: it is started again then.") from error

    def _last(self) -> str:
        """The last thing that it said."""
        if self._said is None:
            return ""
        self._said.seek(max(0, self._said.seek(0, os.SEEK_END) - TAIL))
        lines = self._said.read().decode(errors="replace").strip().splitlines()
        wrong = [line for line in lines if "rror" in line or "fail" in line.lower()]
        return (wrong or lines or ["it said nothing"])[-1].strip()[:300]


def _must_be_gguf(file: Path) -> None:
    try:
        with file.open("rb") as opened:
            begins = opened.read(len(MAGIC))
    except OSError as error:
        raise LlamaCppFailed(f"{file}: cannot be read: {error.strerror}. `rillfold export-base` writes one.") from error
    if begins != MAGIC:
        raise LlamaCppFailed(f"{file}: is no GGUF file. `rillfold export-base` and `adapters export` write them.")


def _free(port: int) -> int:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError as error:
            raise LlamaCppFailed(f"port {port} of {HOST} is taken: {error.strerror}. Give another, or 0.") from error
        return int(probe.getsockname()[1])


def _command(setup: LlamaSetup, port: int) -> Sequence[str]:
    threads = setup.threads or os.cpu_count() or 1
    if setup.llama_cpp is None:
        return _packaged(setup, port, threads)
    loras = [word for file in setup.adapters for word in ("--lora", str(file))]
    exact = ("--cache-type-k", "f32", "--cache-type-v", "f32", "--flash-attn", "off") if setup.float32 else ()
    return [
        *(str(program(setup.llama_cpp)), "--host", HOST, "--port", str(port), "--model", str(setup.model)),
        *("--ctx-size", str(setup.context * setup.rows), "--parallel", str(setup.rows), "--threads", str(threads)),
        *("--jinja", "--lora-init-without-apply", *loras, *exact),
    ]


def _packaged(setup: LlamaSetup, port: int, threads: int) -> Sequence[str]:
    if find_spec("xllamacpp") is None:
        raise LlamaCppFailed(
            "llama.cpp is not here. Set LLAMA_CPP_PATH to a llama-server or the folder that holds it, or install "
            "`rillfold[llama-cpp]`, which brings xllamacpp."
        )
    told = {
        "model": str(setup.model),
        "adapters": [str(file) for file in setup.adapters],
        "port": port,
        "context": setup.context * setup.rows,
        "rows": setup.rows,
        "threads": threads,
        "float32": setup.float32,
    }
    return [sys.executable, "-m", "gpu_workers.export.llama_child", json.dumps(told)]


def program(place: Path) -> Path:
    """llama-server itself, or in a folder as its builds lay it."""
    places = [place] if place.is_file() else [place / PROGRAM, place / "bin" / PROGRAM, place / "build/bin" / PROGRAM]
    found = next((each for each in places if each.is_file() and os.access(each, os.X_OK)), None)
    if found is None:
        raise LlamaCppFailed(
            f"LLAMA_CPP_PATH={place}: no {PROGRAM} there that may be run. Give the program or its folder, or unset it "
            "and install `rillfold[llama-cpp]`."
        )
    return found.absolute()


def _ended(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(STOP_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    if process.stdin is not None:
        process.stdin.close()
