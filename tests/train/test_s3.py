"""The registry over a bucket: on S3's own protocol, what is published is found, fetched, signed and checked."""

from __future__ import annotations

import threading
from pathlib import Path

import numpy as np
import pytest

from gpu_workers.adapters.check import CONFIG, TENSORS
from gpu_workers.adapters.remote import RemoteStore
from gpu_workers.adapters.remote_files import RemoteFiles
from gpu_workers.adapters.store import MANIFEST, FolderStore, verify
from gpu_workers.errors import ArtifactRefused, StoreAway, StoreTakesNothing
from rillfold.registry import AdapterRegistry, BaseHash
from rillfold.settings import Settings
from rillfold.wiring import artifact_store
from schemas.topics import TopicNames
from streams.log.memory import MemoryLog
from streams.log.port import TopicSpec
from tests.support.laid import FACTS, MODULE, lay
from tests.support.s3 import FakeS3, bucket, owner, s3
from tests.train.test_stores import remote

__all__ = ["bucket", "s3"]

BASE = BaseHash("tiny", "0" * 64)


class Shop:
    """Installations that share a log and a bucket, and nothing on their disks."""

    def __init__(self, root: Path, bucket: str) -> None:
        self._root, self._bucket, self.log = root, bucket, MemoryLog()

    async def open(self) -> Shop:
        await self.log.create([TopicSpec(TopicNames().wire("adapter-ready"), 1)])
        return self

    def settings(self, name: str) -> Settings:
        url = f"s3://{self._bucket}/adapters"
        return Settings(data_dir=self._root / name, cache_dir=self._root / f"cache-{name}", adapter_store=url)

    def registry(self, name: str = "one") -> AdapterRegistry:
        return AdapterRegistry(self.log, self.settings(name))


@pytest.fixture
async def shop(tmp_path: Path, bucket: str) -> Shop:
    return await Shop(tmp_path, bucket).open()


async def test_what_one_publishes_another_finds_fetches_and_signs(shop: Shop, bucket: str, tmp_path: Path) -> None:
    found = await shop.registry().publish(lay(tmp_path / "made"), "acme/support", BASE)
    assert found.url == f"s3://{bucket}/adapters/sha256/{found.sha256}" and found.signature == "good"
    there = {name.rpartition("/")[2] for name in owner().ls(f"{bucket}/adapters/sha256/{found.sha256}")}
    assert there == {TENSORS, CONFIG, MANIFEST}
    other = await shop.registry().publish(lay(tmp_path / "b", config={"lora_alpha": 8}), "acme/support", BASE)
    assert (found.version, other.version) == (1, 2)
    files = await shop.registry("two").download("acme/support@1", out := tmp_path / "out")
    assert {file.name for file in files} > {TENSORS, CONFIG, MANIFEST}
    assert (out / TENSORS).read_bytes() == (tmp_path / "made" / TENSORS).read_bytes()
    assert (await shop.registry("two").resolve("acme/support@1")).signature == "not trusted"
    assert (await shop.registry("two").sign("acme/support@1")).signature == "good"
    assert (await shop.registry().resolve("acme/support@1")).signature == "not trusted", "it has another's now"


@pytest.mark.parametrize("name", [TENSORS, CONFIG, MANIFEST])
async def test_damaged_bytes_are_refused_and_nothing_is_written(
    shop: Shop, bucket: str, tmp_path: Path, name: str
) -> None:
    found = await shop.registry().publish(lay(tmp_path / "made"), "acme/support", BASE)
    at, keeps = f"{bucket}/adapters/sha256/{found.sha256}/{name}", owner()
    whole = bytearray(keeps.cat_file(at))
    whole[len(whole) // 2] ^= 1
    keeps.pipe_file(at, bytes(whole))
    with pytest.raises(ArtifactRefused, match=f"{name} was altered"):
        await shop.registry("two").download("acme/support", tmp_path / "out")
    assert not (tmp_path / "out").exists()
    await shop.registry().publish(tmp_path / "made", "acme/again", BASE)
    assert await shop.registry("three").download("acme/support", tmp_path / "out"), "publishing has mended it"


async def test_a_bucket_that_may_only_be_read_is_read_and_takes_nothing(
    shop: Shop, s3: FakeS3, bucket: str, tmp_path: Path
) -> None:
    await shop.registry().publish(lay(tmp_path / "made"), "acme/support", BASE)
    s3.read_only = True
    assert await shop.registry("two").download("acme/support", tmp_path / "out")
    made = lay(tmp_path / "other", config={"lora_alpha": 8})
    with pytest.raises(StoreTakesNothing, match=rf"s3://{bucket}/adapters takes no sha256/.*PermissionError"):
        await shop.registry("two").publish(made, "acme/support", BASE)
    assert not artifact_store(shop.settings("two")).has_room()
    s3.read_only = False
    assert (await shop.registry("two").publish(made, "acme/support", BASE)).version == 2


async def test_late_answers_are_waited_for_and_silence_is_named(s3: FakeS3, bucket: str, tmp_path: Path) -> None:
    store = remote(f"s3://{bucket}/adapters", tmp_path / "copies", silent=1.0)
    sha256 = store.put(lay(tmp_path / "made"), FACTS)
    s3.silent = silence = threading.Event()
    with pytest.raises(StoreAway, match=rf"s3://{bucket}/adapters does not answer.*said nothing for 1 seconds"):
        remote(f"s3://{bucket}/adapters", tmp_path / "none", silent=1.0).place(sha256)
    assert verify(FolderStore(tmp_path / "copies").place(sha256), sha256) == FACTS, "copies are served on"
    threading.Timer(0.3, silence.set).start()
    late = remote(f"s3://{bucket}/adapters", tmp_path / "late", silent=20.0)
    assert verify(late.place(sha256), sha256) == FACTS


def test_a_slow_line_is_no_silence(s3: FakeS3, bucket: str, tmp_path: Path) -> None:
    """The package says nothing until all of a file is there: a try beside it would make both slower, for ever."""
    rank, width = 32, 24_000
    sides = {"lora_A": np.ones((rank, width), np.float32), "lora_B": np.ones((width, rank), np.float32)}
    made = lay(tmp_path / "made", {f"{MODULE}.{side}.weight": each for side, each in sides.items()}, {"r": rank})
    store = RemoteStore(
        RemoteFiles(f"s3://{bucket}/adapters", (), (0.1, 0.1), silent_seconds=2.0), FolderStore(tmp_path / "copies")
    )
    s3.a_mib, s3.puts = 0.6, 0
    sha256 = store.put(made, FACTS)
    assert s3.puts == 1
    assert owner().exists(f"{bucket}/adapters/sha256/{sha256}/{TENSORS}")
