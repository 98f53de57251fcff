"""What was verified is what answers, whatever becomes of its file; and what was refused is looked at again."""

from __future__ import annotations

import os
from pathlib import Path
from time import monotonic
from typing import Any

import msgspec
import pytest

from gpu_workers.adapters.keys import AdapterKeys
from gpu_workers.adapters.own_copy import own_copy
from gpu_workers.adapters.signature import key_id, new_key, private_key
from gpu_workers.adapters.store import CONFIG, TENSORS, Facts, FolderStore, verify
from gpu_workers.errors import ArtifactRefused
from gpu_workers.serve import catalogue
from gpu_workers.serve.engines.start import EngineSetup, embedded
from gpu_workers.serve.port import Answer, Failure
from tests.support.workbench import CPU, ask


@pytest.fixture
def facts(bench: Any) -> Facts:
    return Facts(company="acme", base_model="tiny", base_sha256=bench.base_sha256, tools_in_prompt=False)


async def test_what_was_verified_is_what_answers(bench: Any, facts: Facts, tmp_path: Path):
    """Whoever may write to the store writes over the file in its place, and then cuts it short."""
    store = FolderStore(tmp_path / "store")
    one, two = bench.adapter("acme/one", 2, 2), bench.adapter("acme/two", 2, 3)
    spec = msgspec.structs.replace(one, folder=None, sha256=store.put(one.folder, facts))
    question = ask("Hi", "acme/one", max_tokens=40)
    expected = bench.peft(one, question)
    async with embedded(str(bench.base), tmp_path / "cache", EngineSetup(device=CPU, capacity=3), store) as engine:
        await engine.load(spec)
        there = store.place(spec.sha256) / TENSORS
        there.chmod(0o644)
        with there.open("r+b") as file:
            file.write((two.folder / TENSORS).read_bytes())
        with pytest.raises(ArtifactRefused):
            verify(there.parent, spec.sha256)
        answer = await engine.answer(question)
        assert isinstance(answer, Answer) and answer.text == expected
        os.truncate(there, 10)
        answer = await engine.answer(question)
        assert isinstance(answer, Answer) and answer.text == expected


def test_what_is_changed_after_it_was_copied_is_not_what_is_read(bench: Any, facts: Facts, tmp_path: Path):
    store = FolderStore(tmp_path / "store")
    sha256 = store.put(bench.adapter("acme/one", 2, 2).folder, facts)
    folder = store.place(sha256)
    before = (folder / TENSORS).read_bytes()
    with own_copy(folder, sha256, "acme") as (own, told):
        (folder / TENSORS).chmod(0o644)
        (folder / TENSORS).write_bytes(b"other")
        assert ((own / TENSORS).read_bytes(), told) == (before, facts)
    assert not own.exists()
    with pytest.raises(ArtifactRefused, match=str(folder)), own_copy(folder, sha256):
        raise AssertionError


@pytest.mark.parametrize("what", ["pipe", "link", "folder"])
def test_what_is_no_file_is_neither_followed_nor_waited_for(what: str, bench: Any, facts: Facts, tmp_path: Path):
    store = FolderStore(tmp_path / "store")
    sha256 = store.put(bench.adapter("acme/one", 2, 2).folder, facts)
    config = store.place(sha256) / CONFIG
    config.unlink()
    {"pipe": os.mkfifo, "link": lambda path: path.symlink_to("/dev/zero"), "folder": Path.mkdir}[what](config)
    with pytest.raises(ArtifactRefused), own_copy(store.place(sha256), sha256):
        raise AssertionError


async def test_what_was_signed_as_told_is_served(bench: Any, facts: Facts, tmp_path: Path, monkeypatch):
    key = private_key(new_key(), "a test")
    keys = AdapterKeys({key_id(key.public_key()): key.public_key()}, demanded=True, own=lambda: key)
    unsigned, signing = FolderStore(tmp_path / "store"), FolderStore(tmp_path / "store", keys)
    one = bench.adapter("acme/one", 1, 2)
    spec = msgspec.structs.replace(one, folder=None, sha256=unsigned.put(one.folder, facts))
    async with embedded(str(bench.base), tmp_path / "cache", EngineSetup(device=CPU, capacity=3), signing) as engine:
        engine.announce(spec)
        for _ in range(2):
            refused = await engine.answer(ask("Hi", "acme/one"))
            assert isinstance(refused, Failure) and refused.reason == "unusable_adapter"
        signing.put_papers(spec.sha256, "acme/one@1", {"README.md": b"card"})
        assert isinstance(await engine.answer(ask("Hi", "acme/one")), Failure), "it was looked at a moment ago"
        now = monotonic() + catalogue.AGAIN_SECONDS + 1
        monkeypatch.setattr("gpu_workers.serve.engines.embedded.monotonic", lambda: now)
        assert isinstance(await engine.answer(ask("Hi", "acme/one")), Answer)
