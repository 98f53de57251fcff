"""Quickstart, automation and queries, run as they stand there, on one stack with all workers and a tiny base model."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import ThreadingHTTPServer
from pathlib import Path
from textwrap import indent
from typing import Any

import psycopg
import pytest

from gpu_workers.bases import tiny
from rillfold.demo import data
from rillfold.embedded.ports import free_port
from tests.kill.world import scratch
from tests.support.pages import ROOT, blocks, ran, surroundings
from tests.support.servers import short_lived_java
from tests.support.tool import answering, at_work
from tests.support.waiting import until

pytestmark = [pytest.mark.timeout(900), pytest.mark.needs("curl")]
PATIENCE = 240.0
EXAMPLES = 40
LINE = """{"messages": [{"role": "user", "content": "Look up %d."}, {"role": "assistant", "content": "C-%d."}]}"""


@contextmanager
def tool() -> Iterator[str]:
    """Whatever the pages offer as a tool: it says yes."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), answering(lambda _: b'{"status": "kept"}'))
    with at_work(server):
        yield f"127.0.0.1:{server.server_port}"


class Home:
    """The folder in which somebody reads the docs, with everything running."""

    def __init__(self, folder: Path, base: Path, tool: str) -> None:
        self.folder, self.tool, self.port = folder, tool, free_port()
        (folder / ".venv").symlink_to(sys.prefix)
        self.environment = surroundings(
            RILLFOLD_API_PORT=str(self.port),
            RILLFOLD_SERVE_PORT=str(free_port()),
            RILLFOLD_BASE_MODEL=str(base),
            RILLFOLD_ALLOW_PRIVATE_TOOLS="true",
            RILLFOLD_TOOL_PATIENCE_SECONDS="1",
            RILLFOLD_TRAIN_THREADS="1",
            RILLFOLD_SERVE_THREADS="1",
        )

    def run(self, language: str, code: str, **names: str) -> str:
        """With this home's addresses in place of those that the page has, and what an earlier answer said."""
        ours = {
            "localhost:8700": f"localhost:{self.port}",
            "127.0.0.1:8700": f"127.0.0.1:{self.port}",
            "127.0.0.1:9000": self.tool,
            "https://crm.acme.com": f"http://{self.tool}",
        }
        for name, value in (ours | names).items():
            code = code.replace(name, value)
        own = (self.tool, f"localhost:{self.port}", f"127.0.0.1:{self.port}")
        return ran(language, code, self.folder, self.environment, *own)

    def python(self, code: str, seconds: float = PATIENCE, **names: str) -> str:
        """As at a prompt that awaits; what has no end of its own is left after so many seconds."""
        body = indent(code, "    ")
        start = f"    asyncio.run(asyncio.wait_for(main(), {seconds}))"
        code = f"async def main():\n{body}\nwith suppress(TimeoutError):\n{start}"
        return self.run("python", f"import asyncio\nfrom contextlib import suppress\n{code}", **names)

    def postgres(self) -> str:
        told = json.loads((self.folder / ".rillfold" / "stack.json").read_text())
        dsn: str = told["endpoints"]["postgres_dsn"]
        return dsn


@pytest.fixture(scope="module")
def home() -> Iterator[Home]:
    texts = [message.content for talk in data.training(data.ACME, 20) for message in talk if message.content]
    short_lived_java()
    with scratch() as folder, tool() as endpoint:
        made = Home(folder, tiny.make(folder / "base", texts), endpoint)
        line = [sys.executable, "-m", "rillfold", "up", "--workers"]
        log = folder / "up.log"
        with log.open("wb") as out:
            up = subprocess.Popen(line, env=made.environment, cwd=folder, stdout=out, stderr=out)
        try:
            until("all to be ready", lambda: "api is ready" in log.read_text() or up.poll() is not None, PATIENCE)
            assert up.poll() is None, log.read_text()
            yield made
        finally:
            up.terminate()
            up.wait(60)
            sys.stdout.write(log.read_text())


def told(answer: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(answer)
    assert "error" not in found, found
    return found


def test_make_up_is_what_this_test_starts() -> None:
    line = ["make", "-n", "-o", ".venv/.ready", "up", "WORKERS=1"]
    said = subprocess.run(line, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert ".venv/bin/rillfold up --workers" in said
    assert "make up WORKERS=1" in blocks("quickstart.md", "sh")[0][1]


def test_the_quickstart(home: Home) -> None:
    start, look, company, tools, examples, train, work, again = [code for _, code in blocks("quickstart.md", "sh")]
    assert start.startswith("export RILLFOLD_ALLOW_PRIVATE_TOOLS=true")
    home.run("sh", look)
    key = home.run("sh", company).split("RILLFOLD_API_KEY=")[1].strip()
    (_, offered), (_, example) = blocks("quickstart.md", "json")
    (home.folder / "tools.json").write_text(offered.replace("127.0.0.1:9000", home.tool))
    assert "offered" in home.run("sh", listed_in_time(tools), **{"rk_…": key})
    rows = [example.replace("plum cake", f"cake {n % 7}").replace("Ms Weber", f"Ms W{n}") for n in range(EXAMPLES)]
    (home.folder / "examples.jsonl").write_text("".join(rows))
    assert str(EXAMPLES) in home.run("sh", examples)
    assert "bakery/default" in home.run("sh", train)

    # As in the shell in which the key was exported. Whether so small a model does it is not the page's word.
    asked, trace = work.split("rillfold trace")
    did = home.run("sh", f"export RILLFOLD_API_KEY={key}\n{asked.strip()} || test $? = 1")
    assert "status     completed" in did or "status     failed" in did
    assert "job.requested" in home.run("sh", f"rillfold trace{trace}")
    # A digest that disagreed would have ended with 1.
    assert "bakery/default" in home.run("sh", again)


def test_automation_and_queries(home: Home) -> None:
    """In this order: what is asked for is what the automation page has made."""
    ((_, join),) = blocks("automation.md", "sh")
    key = told(home.run("sh", join))["api_key"]
    ((_, automate),) = blocks("automation.md", "python")
    training = ", ".join(LINE % (n, n) for n in range(EXAMPLES))
    said = home.python(
        f"{automate}print(result['job'], result['status'])", **{"training_data=[...]": f"training_data=[{training}]"}
    )
    job, status = said.split()
    assert status in ("completed", "failed")

    commands, requests = [code for _, code in blocks("queries.md", "sh")][:2]
    until_trained(home)
    answers = home.run("sh", commands, JOB=job)
    assert "crm_lookup" in answers and "job.requested" in answers and "acme_corp/default" in answers
    listed, one, *_ = home.run("sh", f"KEY={key}\n" + requests.replace("\ncurl", "\necho\ncurl")).splitlines()
    assert [row["key"] for row in told(listed)["rows"]] == ["acme_corp/crm_lookup"]
    assert "acme_corp/crm_lookup" in one
    ((_, client),) = blocks("queries.md", "python")
    shown = {"    async for row": "    print(page['rows'][0]['key'], flush=True)\n        async for row"}
    assert "acme_corp/crm_lookup" in home.python(f"key = '{key}'\n{client}", 20, **shown)
    ((_, known),) = blocks("queries.md", "sh")[2:]
    answer = json.loads(home.run("sh", f"KEY={key}\n{known}"))
    assert "rows" in answer or answer["error"]["code"] == "behind"
    statements = [re.sub(r"--.*", "", code) for _, code in blocks("queries.md", "sql")]
    with psycopg.connect(home.postgres()) as connection:
        found = [connection.execute(each).fetchall() for text in statements for each in text.split(";") if each.strip()]
    assert [len(rows) for rows in found] == [1, 0, 0]


def listed_in_time(code: str) -> str:
    """A person is slower than the read model; a machine may be not."""
    list_, again = "rillfold tools list", "until rillfold tools list | grep offered; do sleep 0.2; done"
    assert list_ in code
    return code.replace(list_, again)


def until_trained(home: Home) -> None:
    """A run was asked for, and nobody waited for it."""
    ask = "rillfold query lora_adapters --company acme_corp --json"
    until("an adapter", lambda: "acme_corp/default" in home.run("sh", ask), PATIENCE, pause=1)
