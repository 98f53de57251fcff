"""An adapter that an older release trained, made again from what that release left: its rows, its base, its settings.

What is learned, in which order and in which batches, is the same on every machine. What comes of it is sums of floats,
which libraries take in another order on another processor: the bytes are held where they are known to come out.
"""

from __future__ import annotations

import hashlib
import json
import tarfile
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import pytest

from gpu_workers.adapters.store import Facts, FolderStore
from gpu_workers.train.learn.objectives import objective_of
from gpu_workers.train.lines import RunSpec
from gpu_workers.train.run import _base, _checked_rows, device_of, run
from processors.dataset.turns import Manifest, canonical
from processors.training.settings import TrainSettings
from tests.upgrade.older_release import STORED

LEFT = ("tiny", "dataset")
LEARNED = {"463ba6b": "6a090ef1808f93d082cc83f860686c13dcfa13194694d646bc5debcd968a3260"}
"""sha256 over the tokens of all batches and where answers stand in them."""
KNOWN_ON = "AuthenticAMD"
"""Two of the identity's machines are alike in all that it says, and may still be of two makers."""


class Left(NamedTuple):
    """By an older release."""

    release: str
    folder: Path
    lineage: dict[str, Any]
    """What it said of its adapter."""

    @property
    def identity(self) -> Any:
        return json.loads(self.lineage["identity"])

    @property
    def manifest(self) -> Manifest:
        return msgspec.json.decode((self.folder / "dataset" / "manifest.json").read_bytes(), type=Manifest)

    def spec(self, rule: int, out: Path) -> RunSpec:
        """Nothing was left out of these rows, so that rules 1 and 2 give the same."""
        return RunSpec(
            rows=self.folder / "dataset" / "rows.jsonl",
            rows_sha256=self.manifest.rows_sha256,
            out=out,
            cache=self.folder,
            base_model=str(self.folder / "tiny"),
            method=self.lineage["method"],
            settings=msgspec.convert(self.identity["settings"] | {"rule": rule}, TrainSettings),
            threads=self.identity["machine"]["threads"],
        )


@pytest.fixture(scope="module", params=sorted(folder.name for folder in STORED.iterdir()))
def left(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Left:
    folder, stored = tmp_path_factory.mktemp(request.param), STORED / request.param
    with tarfile.open(stored / "folder.tar.xz") as archive:
        members = [member for member in archive if member.name.partition("/")[0] in LEFT]
        archive.extractall(folder, members, filter="tar")
    return Left(request.param, folder, json.loads((stored / "told.json").read_text())["lineage"])


@pytest.mark.parametrize("rule", [1, 2])
def test_the_same_is_learned_in_the_same_batches_on_any_machine(left: Left, rule: int, tmp_path: Path) -> None:
    assert hashlib.sha256(canonical(left.manifest)).hexdigest() == left.lineage["manifest"]
    assert (left.manifest.rule_version, left.manifest.left_out) == (2, 0)
    spec = left.spec(rule, tmp_path)
    _, chat, base = _base(spec, device_of(spec), lambda *_: None)
    assert base.sha256 == left.lineage["base_sha256"]
    batches = objective_of(_checked_rows(spec), chat, spec.settings).batches(spec.settings.steps)
    learned = [[[part.ids.tolist(), part.answers.tolist()] for part in batch] for batch in batches]
    assert len(learned) == spec.settings.steps
    assert hashlib.sha256(msgspec.json.encode(learned)).hexdigest() == LEARNED[left.release]


def test_a_rebuild_gives_the_hash_that_the_older_release_said(left: Left, tmp_path: Path) -> None:
    """By the rule of today: that of then learns the same, batch for batch, as the test above holds."""
    (out := tmp_path / "out").mkdir()
    spec = left.spec(2, out)
    machine = msgspec.to_builtins(device_of(spec).identity())
    if machine != left.identity["machine"] or KNOWN_ON not in Path("/proc/cpuinfo").read_text():
        pytest.skip(f"other bytes may come out here: {machine}, and not {left.identity['machine']} of {KNOWN_ON}")
    base = run(spec, lambda _report: None).base
    facts = Facts(company="acme", base_model=base.name, base_sha256=base.sha256, tools_in_prompt=False)
    assert FolderStore(tmp_path / "store").put(out, facts) == left.lineage["sha256"]
