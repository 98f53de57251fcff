"""`rillfold evaluate`, as a person uses it, on a folder and a file of rows."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from gpu_workers.adapters.store import Facts, FolderStore
from gpu_workers.errors import ArtifactRefused
from gpu_workers.evaluate.written import ERRORS, METRICS
from processors.dataset.lessons import Lesson, line_of
from rillfold.cli.adapters.evaluate import Measuring, NothingToMeasure, OtherBase, _rows, evaluate
from rillfold.demo import data
from schemas.company import Message
from tests.support.models import ALL, save_adapter
from tests.support.training import write_rows


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
