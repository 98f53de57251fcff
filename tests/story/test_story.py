"""`make demo` as a stranger runs it: a part that fails, a story that is broken off, the whole of it, and its figures.

All tell in one folder, one after the other: each begins anew where the one before it was broken off.
"""

from __future__ import annotations

import io
import os
import signal
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import NamedTuple, cast

import pytest
from rich.console import Console

from gpu_workers.adapters.store import FolderStore
from gpu_workers.bases import load as base_model
from gpu_workers.bases.chat import Chat
from gpu_workers.evaluate.asking import Asker, Side
from gpu_workers.evaluate.measure import judged, unwatched
from processors.measure.cases import Case, held_out
from projections.lora_adapters import LORA_ADAPTERS, Adapter
from rillfold.demo import data
from rillfold.demo.parts import ALL
from rillfold.demo.stage import Stage
from rillfold.demo.story import MARK, Part, PartFailed, fresh, tell
from rillfold.embedded.stack import running
from rillfold.settings import from_env
from schemas.errors import Stop
from schemas.topics import TopicNames
from streams.fold.view import View
from streams.log.kafka.log import KafkaLog
from tests.story.telling import GONE_WITHIN, begin, demo_folder, on
from tests.support.training import rows_of
from tests.support.waiting import until


def test_only_a_folder_of_the_demo_is_emptied(tmp_path: Path) -> None:
    console, mine = Console(file=io.StringIO()), tmp_path / "demo"
    for _ in range(2):
        fresh(mine, console)
        assert [path.name for path in mine.iterdir()] == [MARK]
        (mine / "kafka").mkdir()
        (mine / "kafka" / "log").touch()
    (precious := tmp_path / "home" / "letter").parent.mkdir()
    precious.touch()
    with pytest.raises(Stop, match="no demo has made"):
        fresh(precious.parent, console)
    with pytest.raises(Stop, match="cannot hold the demo"):
        fresh(precious, console)
    assert precious.exists()


async def test_a_part_that_fails_is_named(tmp_path: Path) -> None:
    heard: list[str] = []

    async def good(_: Stage) -> None:
        heard.append("good")

    async def bad(_: Stage) -> None:
        raise ValueError("the tide went out")

    console = Console(file=io.StringIO())
    stage = cast(Stage, SimpleNamespace(console=console, data_dir=tmp_path, seconds={}))
    with pytest.raises(PartFailed, match=r"part 'second' failed: the tide went out.*logs"):
        await tell([Part("first", "First", good), Part("second", "Second", bad), Part("third", "Third", good)], stage)
    assert heard == ["good"]


@pytest.fixture(scope="module")
def folder() -> Iterator[Path]:
    with demo_folder() as path:
        yield path


def begun(folder: Path, said: str) -> bool:
    """All its workers are there: what an earlier telling has left went before."""
    return "topics create" in said and (folder / "logs" / "api.log").exists()


def at_work(_folder: Path, said: str) -> bool:
    return "fold is ready" in said


@pytest.mark.timeout(700)
@pytest.mark.parametrize(
    ("number", "far"),
    [(signal.SIGINT, begun), (signal.SIGTERM, begun), (signal.SIGKILL, at_work)],
    ids=["SIGINT", "SIGTERM", "SIGKILL"],
)
def test_a_story_that_is_broken_off_leaves_nothing_and_the_next_begins_anew(
    folder: Path, tmp_path: Path, number: signal.Signals, far: Callable[[Path, str], bool]
) -> None:
    out = tmp_path / "out"
    told = begin(folder, out)
    until("no worker came up", lambda: far(folder, out.read_text()) or told.poll() is not None, 300)
    assert told.poll() is None, out.read_text()
    os.kill(told.pid, number)
    assert told.wait(300) != 0
    until("servers were left behind", lambda: not on(folder), GONE_WITHIN)
    assert number == signal.SIGKILL or "stopped, with all that it had started" in out.read_text()


class Told(NamedTuple):
    folder: Path
    code: int
    text: str


@pytest.fixture(scope="module")
def told(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Told:
    out = tmp_path_factory.mktemp("told") / "out"
    story = begin(folder, out)
    try:
        code = story.wait(3_000)
    except subprocess.TimeoutExpired:
        pytest.fail(f"3,000 seconds were not enough. How far it came:\n{out.read_text()[-4000:]}")
    finally:
        story.kill()
        story.wait()
    return Told(folder, code, out.read_text())


@pytest.mark.model
@pytest.mark.timeout(3_300)
def test_after_all_that_the_whole_story_is_told(told: Told) -> None:
    assert told.code == 0, told.text[-4000:]
    for part in ALL:
        assert part.title in told.text
    until("servers were left behind", lambda: not on(told.folder), GONE_WITHIN)


@pytest.mark.model
@pytest.mark.timeout(3_300)
async def test_each_company_has_a_model_that_calls_its_tools_and_no_other(told: Told) -> None:
    assert told.code == 0, "the story was not told to its end"
    made = await adapters_of(told.folder)
    assert set(made) == {company.id for company in data.COMPANIES}
    for adapter in made.values():
        assert adapter.evaluation is not None
        assert adapter.evaluation.examples == data.REQUESTS
        assert adapter.evaluation.before < 0.1
        assert adapter.evaluation.after >= 0.95
        assert adapter.promoted and adapter.verdict == "better", adapter.verdict_detail

    store = FolderStore(told.folder / "adapters")
    model, tokenizer, _ = base_model.load(made["acme"].base_model, from_env().cache_dir)
    asker = Asker(model, Chat.of(tokenizer))
    for own, other in ((data.ACME, data.GLOBEX), (data.GLOBEX, data.ACME)):
        side = Side(store.place(made[own.id].sha256))
        answers = asker.answers([(case, side) for case in requests_of(other)], unwatched)
        assert sum(judged(each).right for each in answers) < 0.1 * len(answers)


async def adapters_of(folder: Path) -> dict[str, Adapter]:
    """The first version of each, as the story's own log has it."""
    with running(folder, postgres=False) as endpoints:
        async with KafkaLog(endpoints.bootstrap_servers) as log:
            rows = await View(log, TopicNames(), LORA_ADAPTERS).catch_up()
    return {row.company: row for row in rows.values() if row.version == 1}


def requests_of(company: data.DemoCompany) -> list[Case]:
    rows = rows_of([data.conversation(company, request)[:2] for request in data.held_out(company)])
    cases = held_out(rows, data.REQUESTS, lambda _: True)
    assert len(cases) == data.REQUESTS
    return cases
