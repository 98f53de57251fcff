"""A thousand adapters that are wrong in one way each: none is loaded, each is refused by its name, and a good one is
answered by afterwards."""

from __future__ import annotations

import shutil
from collections import Counter
from pathlib import Path
from random import Random

import msgspec
import pytest

from gpu_workers.adapters.keys import AdapterKeys
from gpu_workers.adapters.remote import RemoteStore
from gpu_workers.adapters.remote_files import RemoteFiles
from gpu_workers.adapters.signature import key_id, new_key, private_key
from gpu_workers.adapters.store import Facts, FolderStore
from gpu_workers.bases.shapes import linear_shapes
from gpu_workers.errors import StoreAway
from gpu_workers.refused import UnusableAdapter
from gpu_workers.serve.engines.start import EngineSetup, embedded
from gpu_workers.serve.port import Answer, Failure
from tests.serve.damaged import KINDS, Forger, plain, spec_of
from tests.support.workbench import CPU, Workbench, ask

OF_EACH = 125


class AwayStore(FolderStore):
    """Behind a network that is down."""

    def place(self, sha256: str) -> Path:
        raise StoreAway("adapter store s3://bucket does not answer, asked 2 times: ConnectionError.")


async def test_a_thousand_damaged_adapters_are_refused_by_name_and_none_is_loaded(bench: Workbench) -> None:
    listed, unlisted = (private_key(new_key(), "a test") for _ in range(2))
    module, (out, into) = next(
        item for item in linear_shapes(bench.base).items() if item[0].endswith("layers.0.self_attn.q_proj")
    )
    it = Forger(bench.root / "forged", bench.base_sha256, module, out, into, listed, unlisted)
    keys = AdapterKeys({key_id(listed.public_key()): listed.public_key()}, demanded=True)
    setup, store = EngineSetup(CPU), FolderStore(it.root, keys)
    refused: Counter[str] = Counter()
    async with embedded(str(bench.base), bench.root / "cache", setup, store) as engine:
        for kind, damaged in KINDS.items():
            dice = Random(f"damaged {kind}")
            for number in range(1, OF_EACH + 1):
                spec = spec_of(it, kind, number, damaged(it, dice))
                with pytest.raises(UnusableAdapter) as told:
                    await engine.load(spec)
                assert f"acme/{kind}@{number}" in str(told.value) and len(str(told.value)) < 2_000
                assert not engine.resident(), told.value
                refused[kind] += 1
        assert refused == dict.fromkeys(KINDS, OF_EACH) and refused.total() == 1_000
        good = spec_of(it, "good", 1, it.keep(plain(it, Random(1))))
        await engine.load(good)
        assert isinstance(await engine.answer(ask("Hi", "acme/good", 1)), Answer)


async def test_an_adapter_is_served_out_of_a_store_behind_a_url(bench: Workbench, tmp_path: Path) -> None:
    remote = RemoteStore(RemoteFiles(f"memory:/{tmp_path}/store"), FolderStore(tmp_path / "copies"))
    spec = bench.adapter("acme/remote", 1)
    facts = Facts(company="acme", base_model="tiny", base_sha256=bench.base_sha256, tools_in_prompt=False)
    assert spec.folder is not None
    assert remote.put(spec.folder, facts) == spec.sha256
    shutil.rmtree(tmp_path / "copies")
    async with embedded(str(bench.base), bench.root / "cache", EngineSetup(CPU), remote) as engine:
        await engine.load(msgspec.structs.replace(spec, folder=None))
        answer = await engine.answer(ask("Hi", "acme/remote", 1))
        assert isinstance(answer, Answer) and answer.text == bench.peft(spec, ask("Hi"))


async def test_a_store_that_is_away_is_no_adapters_fault(bench: Workbench, tmp_path: Path) -> None:
    spec = msgspec.structs.replace(bench.adapter("acme/away", 1), folder=None)
    async with embedded(str(bench.base), bench.root / "cache", EngineSetup(CPU), AwayStore(tmp_path)) as engine:
        engine.announce(spec)
        said = await engine.answer(ask("Hi", "acme/away", 1))
        assert isinstance(said, Failure) and (said.reason, said.again) == ("adapter_unreadable", True)
        assert "s3://bucket does not answer" in said.detail
