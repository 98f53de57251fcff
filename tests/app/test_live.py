"""The shop as its own wheel, away from our checkout's path: found by its entry point, and killed at work.

Installed as an installer does it, without one: a wheel of plain modules is unpacked into a folder of the path, its
metadata with it. So nothing is downloaded, and Rillfold itself stays where it is.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from rillfold.app.found import apps_of, with_apps
from rillfold.app.installed import installed
from rillfold.embedded.state import Endpoints
from rillfold.settings import Settings
from schemas.codec.codec import decode
from schemas.memory import MemoryNoted
from schemas.topics import TopicNames
from streams.history.refold import held
from streams.log.port import Outgoing, records_in
from streams.state.changelog import topic_of
from tests.support.asking import asked
from tests.support.pages import ROOT
from tests.support.worker import WorkerProcess, external

SHOP = ROOT / "examples" / "shop"


@pytest.fixture(scope="module")
def installed_shop(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    build = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)]
    subprocess.run(build, cwd=SHOP, check=True, capture_output=True)
    (wheel,) = folder.glob("*.whl")
    with zipfile.ZipFile(wheel) as packed:
        packed.extractall(folder)
    wheel.unlink()
    return folder


@pytest.fixture
def environment(installed_shop: Path, stack: Endpoints, names: TopicNames, tmp_path: Path) -> dict[str, str]:
    own = external(stack.bootstrap_servers, names.prefix, tmp_path / "data")
    return {**os.environ, **own, "PYTHONPATH": f"{installed_shop}:{ROOT}"}


def rillfold(environment: dict[str, str], folder: Path, *words: str) -> str:
    line = [sys.executable, "-P", "-m", "rillfold", *words]
    done = subprocess.run(line, cwd=folder, env=environment, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_its_own_tests_pass_against_the_wheel(environment: dict[str, str], tmp_path: Path) -> None:
    line = [sys.executable, "-P", "-m", "pytest", "-q", "-p", "no:cacheprovider", "--import-mode=importlib"]
    where = {**environment, "PYTHONDONTWRITEBYTECODE": "1", "PYTEST_ADDOPTS": ""}
    copied = tmp_path / "test_shop.py"
    copied.write_text((SHOP / "tests" / "test_shop.py").read_text())
    done = subprocess.run([*line, str(copied)], cwd=tmp_path, env=where, capture_output=True, text=True)
    assert done.returncode == 0 and "4 passed" in done.stdout, done.stdout


@pytest.fixture
def fold(environment: dict[str, str], tmp_path: Path, started: list[WorkerProcess]) -> Iterator[WorkerProcess]:
    command = ("worker", "fold", "--only", "revenue")
    worker = WorkerProcess("fold", command, environment, tmp_path / "logs")
    started.append(worker)
    yield worker
    worker.close()
    sys.stdout.write(worker.log())


async def test_it_runs_by_its_entry_point_and_counts_once_what_it_was_killed_over(
    environment: dict[str, str],
    tmp_path: Path,
    fold: WorkerProcess,
    kafka: Any,
    names: TopicNames,
    agree: Any,
    installed_shop: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.syspath_prepend(installed_shop)
    revenue = installed(Settings(app="shop.app")).projections["revenue"]
    rillfold(environment, tmp_path, "topics", "create")
    orders = [
        f'{{"type":"order.paid","company":"c{n % 7}","order":"o{n}","day":"d","cents":{n}}}' for n in range(2_000)
    ]
    (tmp_path / "orders.jsonl").write_text("\n".join(orders))
    fold.start(failpoint="appended:2")
    rillfold(environment, tmp_path, "produce", "company-data", "orders.jsonl")
    assert fold.ended() == -signal.SIGKILL
    await kafka.append([Outgoing(names.wire("company-data"), b"c1", b'{"type":"order.paid","company":"c1"}')])
    fold.start()
    assert await agree([revenue]) == 7
    parts = await held(kafka, revenue, topic_of(revenue, names.prefix))
    assert sum(row.cents for part in parts.values() for row in part.rows.values()) == sum(range(2_000))
    assert '"reason":"wrong_type"' in rillfold(environment, tmp_path, "dlq", "list", "--json").replace(" ", "")


async def test_its_topic_is_made_written_and_folded_and_its_rule_builds_a_dataset(
    environment: dict[str, str],
    tmp_path: Path,
    kafka: Any,
    names: TopicNames,
    agree: Any,
    started: list[WorkerProcess],
    installed_shop: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.syspath_prepend(installed_shop)
    parcels = with_apps(apps_of("shop.app")).projections["parcels"]
    assert f"created {names.prefix}parcels" in rillfold(environment, tmp_path, "topics", "create")
    scans = [f'{{"company":"acme","parcel":"p{n % 5}","at":"Ulm"}}' for n in range(50)]
    (tmp_path / "scans.jsonl").write_text("\n".join(scans))
    rillfold(environment, tmp_path, "produce", "parcels", "scans.jsonl")
    (tmp_path / "orders.jsonl").write_text("\n".join(paid(n, 100) for n in range(70)))
    rillfold(environment, tmp_path, "produce", "company-data", "orders.jsonl")
    worker = WorkerProcess("fold", ("worker", "fold", "--only", "parcels"), environment, tmp_path / "logs")
    started.append(worker)
    try:
        worker.start()
        assert await agree([parcels]) == 5
    finally:
        worker.close()
    assert '"parcel.scanned"' in rillfold(environment, tmp_path, "topics", "list", "--json")
    build = ("dataset", "build", "--company", "c1", "--app-rule", "orders.v1", "--out", "orders")
    assert "rule orders.v1: 10 events" in rillfold(environment, tmp_path, *build)
    manifest = tmp_path / "orders" / "manifest.json"
    rillfold(environment, tmp_path, "dataset", "verify", "orders")
    kept = manifest.read_text()
    for old, new, told in (
        ('"sha256":"', '"sha256":"0', "is other code"),
        ("orders.v1", "orders.v9", "There is no rule"),
    ):
        manifest.write_text(kept.replace(old, new))
        assert told in refused(environment, tmp_path, "dataset", "verify", "orders")


def refused(environment: dict[str, str], folder: Path, *words: str) -> str:
    line = [sys.executable, "-P", "-m", "rillfold", *words]
    done = subprocess.run(line, cwd=folder, env=environment, capture_output=True, text=True, timeout=120)
    assert done.returncode == 1 and "Traceback" not in done.stderr, done.stderr
    return done.stderr


@pytest.fixture
def react(environment: dict[str, str], tmp_path: Path, started: list[WorkerProcess]) -> Iterator[WorkerProcess]:
    worker = WorkerProcess("react", ("worker", "react"), environment | QUICK, tmp_path / "logs")
    started.append(worker)
    yield worker
    worker.close()
    sys.stdout.write(worker.log())


QUICK = {"RILLFOLD_SESSION_TIMEOUT": "2"}
DEATHS = ("decoded:3", "appended:2", "decoded:40", "appended:1")
"""Where it dies, one life after another; then by a signal at any moment."""


async def test_what_a_reaction_says_is_said_once_whenever_it_is_killed(
    environment: dict[str, str], tmp_path: Path, react: WorkerProcess, kafka: Any, names: TopicNames
) -> None:
    rillfold(environment, tmp_path, "topics", "create")
    react.start().until_ready()
    react.kill()
    orders = [paid(n, n + 100_000) for n in range(300)]
    (tmp_path / "orders.jsonl").write_text("\n".join(orders))
    rillfold(environment, tmp_path, "produce", "company-data", "orders.jsonl")
    for failpoint in DEATHS:
        react.start(failpoint=failpoint)
        assert react.ended() == -signal.SIGKILL
    for n in range(300, 600, 50):
        react.start().until_ready()
        (tmp_path / "orders.jsonl").write_text("\n".join(paid(n + each, 100_000) for each in range(50)))
        rillfold(environment, tmp_path, "produce", "company-data", "orders.jsonl")
        react.kill()
    react.start().until_ready()
    until = time.monotonic() + 60
    while len(found := await memories(kafka, names)) < 600 and time.monotonic() < until:
        pass
    assert sorted(found) == sorted(f"o{n}" for n in range(600))
    while (ready := asked(tmp_path / "data", "react-1", "/ready")) is None or ready.status_code != 200:
        assert time.monotonic() < until + 30, ready and ready.text
    figures = asked(tmp_path / "data", "react-1", "/metrics")
    assert figures is not None and "rillfold_reactions_failed_total 0.0" in figures.text
    long = '{"type":"order.paid","company":"c1","order":"%s","day":"d","cents":100000}' % ("o" * 200)
    (tmp_path / "orders.jsonl").write_text(long)
    rillfold(environment, tmp_path, "produce", "company-data", "orders.jsonl")
    letter = failed(environment, tmp_path)
    assert "shop/note.v1: Unusable: bad_word" in letter["detail"] and letter["company"] == "c1"
    redriven = json.loads(rillfold(environment, tmp_path, "dlq", "redrive", "--yes", "--json"))
    assert redriven == {"found": 1, "sent": 1, "left_out": []}
    assert failed(environment, tmp_path)["id"] == letter["id"]
    assert len(await memories(kafka, names)) == 600
    react.stop()
    assert react.code() == 0


def failed(environment: dict[str, str], folder: Path) -> dict[str, Any]:
    """The one letter, once a reaction has failed and nothing has it try again."""
    until = time.monotonic() + 30
    while True:
        found = json.loads(rillfold(environment, folder, "dlq", "list", "--reason", "reaction_failed", "--json"))
        if len(found) == 1 and not found[0]["sent_again"]:
            letter: dict[str, Any] = found[0]
            return letter
        assert time.monotonic() < until, found


def paid(n: int, cents: int) -> str:
    return f'{{"type":"order.paid","company":"c{n % 7}","order":"o{n}","day":"d","cents":{cents}}}'


async def memories(kafka: Any, names: TopicNames) -> list[str]:
    wire = names.wire("company-data")
    records = [record for n in await kafka.ends(wire) async for record in records_in(kafka, wire, n, 0)]
    events = [decode(each.value, each.origin, each.timestamp) for each in records]
    return [event.memory for event in events if isinstance(event, MemoryNoted)]
