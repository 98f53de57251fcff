"""`rillfold evaluate`, as a person uses it, on a folder and a file of rows."""

from __future__ import annotations

import asyncio
import json
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import pytest
from click.testing import CliRunner

from gpu_workers.adapters.store import Facts, FolderStore
from gpu_workers.errors import ArtifactMissing, ArtifactRefused
from gpu_workers.evaluate.measure import CaseSizes
from gpu_workers.evaluate.written import ERRORS, METRICS
from gpu_workers.serve.port import AdapterKey, AdapterSpec
from processors.dataset.lessons import Lesson, line_of
from rillfold.cli.adapters.evaluate import Measuring, NothingToMeasure, OtherBase, _rows, evaluate
from rillfold.demo import data
from rillfold.embedded.state import Endpoints
from rillfold.registry import NoAdapter
from schemas.company import Message
from schemas.envelope import Event
from schemas.topics import BY_NAME, TopicNames
from streams.log.kafka.admin import wanted
from streams.log.kafka.log import KafkaLog
from streams.log.outgoing import to_outgoing
from tests.serve.test_inference import ready_event
from tests.support.models import ALL, save_adapter
from tests.support.training import conversations, write_rows
from tests.support.worker import external


@pytest.fixture(scope="module")
def adapter(tiny_loaded, tmp_path_factory) -> Path:
    return save_adapter(tiny_loaded[0], tmp_path_factory.mktemp("a"), 1, r=4, lora_alpha=8, target_modules=ALL)


def test_figures_with_their_confidence_and_every_mistake(tmp_path, tiny_base, adapter):
    write_rows(tmp_path / "rows", data.ACME, 2, 3)
    line = [str(adapter), "--rows", str(tmp_path / "rows"), "--base", str(tiny_base), "--out", str(tmp_path / "out")]
    said = CliRunner().invoke(evaluate, line, catch_exceptions=False)
    assert said.exit_code == 0, said.output
    assert [row.split()[:2] for row in said.stdout.splitlines()[1:]] == [
        ["held_out", "3"], ["foreign_tools", "24"], ["irrelevance", "24"]
    ]  # fmt: skip
    found = json.loads((tmp_path / "out" / METRICS).read_text())
    wrong = json.loads((tmp_path / "out" / ERRORS).read_text())
    assert found["against"] is None and found["suites"][0]["difference"]["cases"] == 3
    answered = {each["suite"]: each["difference"] for each in found["suites"]}
    for suite, each in answered.items():
        share = 1 - sum(one["suite"] == suite for one in wrong) / each["cases"]
        assert each["candidate"] == pytest.approx(share)
    assert {"prompt", "expected", "predicted", "mistake"} <= set(wrong[0])

    store = FolderStore(tmp_path / "adapters")
    store.put_measures(tmp_path / "out", "ab" * 32)
    kept = {path.name: path.read_bytes() for path in store.measures("ab" * 32).iterdir()}
    assert kept == {name: (tmp_path / "out" / name).read_bytes() for name in (METRICS, ERRORS)}


class Kept(NamedTuple):
    """Versions 1 and 2 of one adapter, in a log and in the store of a data folder."""

    environ: dict[str, str]
    folders: list[Path]

    def wrong(self, out: Path, *line: str) -> Any:
        """Every wrong answer, word for word: no two adapters make the same."""
        said = CliRunner().invoke(evaluate, [*line, "--out", str(out)], env=self.environ, catch_exceptions=False)
        assert said.exit_code == 0, said.output
        return json.loads((out / ERRORS).read_text())


@pytest.fixture
def kept(stack: Endpoints, names: TopicNames, tmp_path: Path, tiny_base: Path, tiny_loaded: Any) -> Kept:
    data_dir = tmp_path / "data"
    more = {"BASE_MODEL": str(tiny_base), "SERVE_THREADS": "1"}
    store, sha256 = FolderStore(data_dir / "adapters"), tiny_loaded[2].sha256
    facts = Facts(company="acme", base_model=tiny_base.name, base_sha256=sha256, tools_in_prompt=False)
    events: list[Event] = [*conversations(data.ACME, 2, requests=3)]
    folders = []
    for version in (1, 2):
        made = tmp_path / f"made-{version}"
        save_adapter(tiny_loaded[0], made, version, r=4, lora_alpha=8, target_modules=ALL)
        (made / "README.md").unlink()
        folders.append(store.place(store.put(made, facts)))
        key = AdapterKey("acme/default", version)
        ready = ready_event(AdapterSpec(key=key, sha256=folders[-1].name, base_sha256=sha256))
        events.append(msgspec.structs.replace(ready, base_model=tiny_base.name))

    async def filled() -> None:
        async with KafkaLog(stack.bootstrap_servers) as log:
            await log.create(wanted(names, [BY_NAME[name] for name in ("company-data", "adapter-ready")]))
            await log.append([to_outgoing(event, names) for event in events])

    asyncio.run(filled())
    return Kept(external(stack.bootstrap_servers, names.prefix, data_dir, **more), folders)


def test_a_name_means_what_the_log_and_the_store_say(
    kept: Kept, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Version, company, base and rows: nothing is given but the name."""
    monkeypatch.setattr("gpu_workers.evaluate.measure.CaseSizes", partial(CaseSizes, foreign=1))
    newest = kept.wrong(tmp_path / "newest", "acme/default", "--against", "acme/default@1")
    assert newest == kept.wrong(tmp_path / "folder", str(kept.folders[1]), "--company", "acme")
    assert newest != kept.wrong(tmp_path / "first", "acme/default@1")
    metrics = json.loads((tmp_path / "newest" / METRICS).read_text())
    assert (metrics["against"], metrics["suites"][0]["difference"]["cases"]) == (1, 3)
    with pytest.raises(NoAdapter, match="known: acme/default@1, acme/default@2"):
        kept.wrong(tmp_path, "acme/default@3")
    with pytest.raises(NothingToMeasure, match="None of 0 rows"):
        kept.wrong(tmp_path, "acme/default", "--company", "globex")
    kept.folders[1].rename(tmp_path / "elsewhere")
    with pytest.raises(ArtifactMissing, match="Is this the store it was published to"):
        kept.wrong(tmp_path, "acme/default")


def test_rows_of_the_newest_rule_are_read(tmp_path):
    lesson = Lesson(
        agent="a", story="s", turn=1, held_out=True, prompt=(Message(role="user", content="Hi"),),
        answer=Message(role="assistant", content="Hello"), tools="[]",
    )  # fmt: skip
    path = tmp_path / "rows"
    path.write_bytes(line_of(lesson))
    assert _rows("acme/default", Measuring(None, path, None, None, 1, None, "", None)) == [lesson]


def test_what_cannot_be_measured_says_why(tmp_path, tiny_base, adapter):
    write_rows(tmp_path / "none", data.ACME, 2, 0)

    def asked(*line: str) -> None:
        CliRunner().invoke(evaluate, line, catch_exceptions=False)

    with pytest.raises(NothingToMeasure, match="None of"):
        asked(str(adapter), "--rows", str(tmp_path / "none"))
    with pytest.raises(NothingToMeasure, match="--company or --rows"):
        asked(str(adapter))
    with pytest.raises(ArtifactRefused, match=r"has no adapter_config\.json"):
        asked(str(tmp_path))
    write_rows(tmp_path / "rows", data.ACME, 0, 3)
    store = FolderStore(tmp_path / "store")
    facts = Facts(company="acme", base_model="other", base_sha256="ab" * 32, tools_in_prompt=False)
    other = store.place(store.put(adapter, facts))
    with pytest.raises(OtherBase, match="Name its own with --base"):
        asked(str(other), "--rows", str(tmp_path / "rows"), "--base", str(tiny_base))
