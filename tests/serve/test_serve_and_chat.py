"""`rillfold serve` and `rillfold chat` as a person types them: the answers are those that PEFT gives."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from gpu_workers.serve.port import AdapterSpec
from rillfold.embedded.ports import free_port
from tests.support.pages import surroundings
from tests.support.workbench import Workbench, ask, make_workbench

TOKENS = 8


class Served:
    """A worker that serves one adapter from a folder, and whoever talks to it."""

    def __init__(self, folder: Path, bench: Workbench) -> None:
        self.bench, self.spec = bench, bench.adapter("acme/default", seed=2)
        self.port = free_port()
        self._folder = folder
        self._environment = surroundings(
            RILLFOLD_BASE_MODEL=str(bench.base),
            RILLFOLD_DATA_DIR=str(folder / "data"),
            RILLFOLD_SERVE_PORT=str(self.port),
            RILLFOLD_SERVE_THREADS="1",
        )

    def serve(self, *arguments: str) -> subprocess.Popen[str]:
        line = [sys.executable, "-m", "rillfold", "serve", *arguments]
        return subprocess.Popen(line, env=self._environment, cwd=self._folder, stdout=subprocess.PIPE, text=True)

    def chat(self, *arguments: str, typed: str = "") -> subprocess.CompletedProcess[str]:
        line = [sys.executable, "-m", "rillfold", "chat", "--url", f"http://127.0.0.1:{self.port}"]
        line += ["--max-tokens", str(TOKENS), *arguments]
        return subprocess.run(
            line, env=self._environment, cwd=self._folder, input=typed, capture_output=True, text=True, timeout=120
        )

    def peft(self, spec: AdapterSpec | None, text: str) -> str:
        return self.bench.peft(spec, ask(text, max_tokens=TOKENS))


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    folder = tmp_path_factory.mktemp("served")
    made = Served(folder, make_workbench(folder))
    with made.serve("--adapter", f"acme/default={made.spec.folder}", "--no-tools-in-prompt") as worker:
        try:
            assert worker.stdout is not None
            told = [worker.stdout.readline() for _ in range(3)]
            assert f"127.0.0.1:{made.port}/v1 serves" in told[0] and "acme/default;" in told[0]
            assert told[-1] == "ready\n"
            yield made
            worker.terminate()
            assert worker.wait(30) == 0
        finally:
            worker.kill()


def test_one_answer_by_the_adapter_and_one_by_the_base(served: Served) -> None:
    text = "Look up customer C-4711, please."
    adapted, plain = served.chat(text, "--company", "acme"), served.chat(text)
    assert (adapted.returncode, plain.returncode) == (0, 0), adapted.stderr + plain.stderr
    assert adapted.stdout.strip() == served.peft(served.spec, text).strip()
    assert plain.stdout.strip() == served.peft(None, text).strip()
    assert adapted.stdout != plain.stdout


def test_a_conversation_until_the_end_of_what_is_typed(served: Served) -> None:
    said = served.chat("--company", "acme", typed="Refund 12 euros to Ms Grey.\n\nPlease.\n")
    assert said.returncode == 0, said.stderr
    assert said.stdout.startswith(served.peft(served.spec, "Refund 12 euros to Ms Grey.").strip())
    assert said.stderr.startswith("acme/default: Ctrl-D ends.")
    assert said.stderr.count("> ") == 4


def test_an_adapter_that_nobody_serves_and_a_server_that_is_not_there(served: Served) -> None:
    refused = served.chat("Hello", "--company", "globex")
    assert (refused.returncode, refused.stdout) == (1, "")
    assert "globex/default" in refused.stderr and "`rillfold adapters list` names what there is" in refused.stderr
    away = served.chat("Hello", "--url", f"http://127.0.0.1:{free_port()}")
    assert away.returncode == 1
    assert "rillfold: " in away.stderr and "Traceback" not in away.stderr


def test_a_folder_that_is_not_there_is_named(served: Served) -> None:
    with served.serve("--adapter", "acme/default=nowhere") as refused:
        assert refused.wait(60) == 1
