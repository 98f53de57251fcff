"""The commands of docs/registry.md as written, and the registry itself: what is published is fetched and checked."""

from __future__ import annotations

import asyncio
import json
import shlex
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path

import fsspec
import pytest
from click.testing import CliRunner, Result

from gpu_workers.adapters.check import CONFIG, TENSORS
from gpu_workers.adapters.dice import rolled
from gpu_workers.adapters.keys import CARD, PROVENANCE
from gpu_workers.adapters.origin import fetched
from gpu_workers.adapters.signature import SIGNATURE, key_id, new_key, pem_of, private_key, public_key, signed_files
from gpu_workers.adapters.store import MANIFEST, verify
from gpu_workers.bases.files import file_sha256
from gpu_workers.errors import ArtifactRefused, NotSigned
from projections.lora_adapters import Adapter
from rillfold.cli import rillfold
from rillfold.cli.adapters.export import _wanted as exported
from rillfold.cli.adapters.registry import _base
from rillfold.cli.terminal import live
from rillfold.embedded.state import Endpoints
from rillfold.registry import AdapterRegistry, BadName, BaseHash, FolderTaken, NoAdapter, PublishedBefore, find
from rillfold.settings import Settings, from_env
from rillfold.wiring import artifact_store
from schemas.adapters import AdapterReady
from schemas.topics import BY_NAME, TopicNames
from streams.log.kafka.admin import wanted
from streams.log.kafka.log import KafkaLog
from streams.log.memory import MemoryLog
from streams.log.outgoing import to_outgoing
from streams.log.port import TopicSpec
from tests.support.laid import FACTS, lay
from tests.support.pages import blocks
from tests.support.worker import external

BASE = BaseHash("tiny", "0" * 64)


@pytest.fixture
def at_home(stack: Endpoints, names: TopicNames, tmp_path: Path, tiny_base: Path) -> Iterator[None]:
    """A stranger's folder with an adapter in it, and the settings that the page takes for granted."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path)
        for name, value in external(stack.bootstrap_servers, names.prefix, Path(".rillfold")).items():
            patch.setenv(name, value)
        patch.setenv("RILLFOLD_BASE_MODEL", str(tiny_base))
        rolled(tiny_base, tmp_path / "my-adapter", 1, rank=2)
        yield


async def command(*arguments: str) -> Result:
    return await asyncio.to_thread(CliRunner(catch_exceptions=False).invoke, rillfold, arguments)


async def test_every_block_of_the_page_runs(kafka: KafkaLog, names: TopicNames, at_home: None, tmp_path: Path) -> None:
    await kafka.create(wanted(names, [BY_NAME["adapter-ready"]]))
    said = {}
    for language, code in blocks("registry.md", "sh", "python"):
        if language == "python":
            await asyncio.to_thread(exec, compile(code, "registry.md", "exec"), {"__name__": "page"})
            continue
        for line in code.splitlines():
            done = await command(*shlex.split(line)[1:])
            assert done.exit_code == 0, (line, done.output)
            said[line.split()[2]] = done.stdout
    assert "acme/support@1" in said["list"] and "good" in said["resolve"], said
    signer = public_key((tmp_path / ".rillfold" / "signing" / "adapters.pub").read_bytes(), "ours")
    for folder in (tmp_path / "fetched", tmp_path / "fetched-by-python"):
        sha256 = file_sha256(folder / MANIFEST)
        assert f"sha256     {sha256}" in said["resolve"]
        files = {path.name: file_sha256(path) for path in folder.iterdir() if path.name != SIGNATURE}
        assert signed_files((folder / SIGNATURE).read_bytes(), {key_id(signer): signer}).files == files
        assert set(files) == {CONFIG, TENSORS, MANIFEST, CARD}

    resolved = await command("adapters", "resolve", "acme/support", "--json")
    assert json.loads(resolved.stdout)["signed_by"] == key_id(signer)
    again = await command("adapters", "publish", "fetched", "acme/support", "--json")
    assert json.loads(again.stdout)["version"] == 1, "the very same bytes"
    (tmp_path / "broken").mkdir()
    for wrong, why in (
        (["publish", "nowhere", "acme/support"], "nowhere: is not there"),
        (["publish", "broken", "acme/support"], f"broken: has no {CONFIG} and no {TENSORS}"),
        (["publish", "my-adapter", "acme/support@3"], "Write COMPANY/ROLE; the log counts the versions"),
        (["resolve", "acme/support@9"], "known: acme/support@1"),
        (["download", "acme/support", "my-adapter"], f"my-adapter: has {TENSORS}, {CONFIG} already"),
    ):
        with pytest.raises((ArtifactRefused, BadName, NoAdapter, FolderTaken)) as told:
            await command("adapters", *wrong)
        assert why in str(told.value)
    nameless = await command("adapters", "publish", "my-adapter", "acme")
    assert nameless.exit_code == 2 and "'acme' can name no adapter" in nameless.output


async def test_an_adapter_of_another_base_is_not_published(at_home: None, tmp_path: Path) -> None:
    """Before anything of the log is asked."""
    with pytest.raises(ArtifactRefused, match=r"8 x 8 has no place in tiny-qwen3, which has .* Give its own base"):
        await command("adapters", "publish", str(lay(tmp_path / "small")), "acme/support")


def test_while_a_base_is_read_that_is_told(at_home: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[tuple[object, ...]] = []
    monkeypatch.setattr(live, "phases", lambda: nullcontext(lambda *told: said.append(told)))
    assert _base(tmp_path / "my-adapter", None, from_env()) is not None
    assert "read the base" in {what for what, *_ in said}


class House:
    """A log in memory, and installations that share a store of adapters."""

    def __init__(self, root: Path) -> None:
        self.root, self.log = root, MemoryLog()

    async def open(self) -> House:
        await self.log.create([TopicSpec("adapter-ready", 1)])
        return self

    def settings(self, name: str = "one", keys: Path | None = None) -> Settings:
        return Settings(
            data_dir=self.root / name,
            cache_dir=self.root / f"cache-{name}",
            adapter_store=f"memory:/{self.root}/store",
            adapter_keys=keys,
        )

    def registry(self, name: str = "one", keys: Path | None = None) -> AdapterRegistry:
        return AdapterRegistry(self.log, self.settings(name, keys))

    async def row(self, name: str) -> Adapter:
        return await find(self.log, TopicNames(), name)

    async def trained(self, adapter: str, root: Path) -> str:
        """Of acme, whatever it is called; without papers. Its hash."""
        sha256 = artifact_store(self.settings()).put(lay(root / "made"), FACTS)
        ready = AdapterReady(
            id=adapter, company=adapter.split("/")[0], time=1, correlation="r", adapter=adapter, adapter_version=1,
            run="r", sha256=sha256, uri="file:///a", method="lora", rank=2, alpha=4.0, base_model="tiny",
            base_sha256="0" * 64, manifest="d" * 64, ranges=(), seed=0, identity="{}",
        )  # fmt: skip
        await self.log.append([to_outgoing(ready, TopicNames())])
        return sha256


@pytest.fixture
async def house(tmp_path: Path) -> House:
    return await House(tmp_path).open()


async def test_what_one_installation_publishes_another_fetches_and_publishes_on(house: House, tmp_path: Path) -> None:
    one, two = house.registry(), house.registry("two")
    made = lay(tmp_path / "made")
    (made / CARD).write_text("# how it was made\n")
    found = await one.publish(made, "acme/support", BASE)
    assert (found.adapter, found.version, found.signature) == ("acme/support", 1, "good")
    assert found.url == f"memory:/{tmp_path}/store/sha256/{found.sha256}"
    row = await house.row("acme/support")
    assert (row.method, row.promoted, row.base_sha256, row.rank) == ("brought", False, BASE.sha256, 2)
    assert (await one.publish(made, "acme/support", BASE)).version == 1
    other = lay(tmp_path / "other", config={"lora_alpha": 8})
    with pytest.raises(PublishedBefore, match="rillfold adapters promote acme/support@1"):
        await one.publish(made, "acme/support", BASE, promote=True)
    assert (await one.publish(other, "acme/support", BASE, promote=True)).version == 2
    assert (await house.row("acme/support@2")).promoted

    files = await two.download("acme/support@1", out := tmp_path / "out")
    assert sorted(path.name for path in files) == sorted([CONFIG, TENSORS, MANIFEST, CARD, SIGNATURE])
    assert (out / CARD).read_text() == "# how it was made\n"
    assert await two.download("acme/support@1", out) == files, "again is the same"
    with pytest.raises(FolderTaken, match="of something else"):
        await two.download("acme/support@2", out)
    seen = await two.resolve("acme/support@1")
    assert (seen.signature, seen.signed_by) == ("not trusted", "") and "which is none of 0" in seen.why
    moved = await two.publish(out, "globex/support")
    assert (
        verify(artifact_store(house.settings("two")).place(moved.sha256), moved.sha256, "globex").base_model == "tiny"
    )


async def test_under_a_list_of_keys_only_what_was_signed_comes_in_and_goes_out(house: House, tmp_path: Path) -> None:
    (listed := tmp_path / "key.pub").write_bytes(pem_of(private_key(new_key(), "a test").public_key()))
    found = await house.registry().publish(lay(tmp_path / "made"), "acme/support", BASE)
    strict = house.registry("strict", listed)
    with pytest.raises(NotSigned, match=f"adapter {found.sha256}"):
        await strict.download("acme/support", tmp_path / "out")
    assert not (tmp_path / "out").exists()
    with pytest.raises(NotSigned, match=r"made: has no model\.sig"):
        await strict.publish(tmp_path / "made", "acme/other", BASE)
    assert (await strict.sign("acme/support")).signature == "good"
    assert await strict.download("acme/support", tmp_path / "out")
    assert (await house.registry().resolve("acme/support")).signature == "not trusted", "signed by another now"
    listed.write_bytes((house.root / "strict" / "signing" / "adapters.pub").read_bytes())
    assert (await house.registry("three", listed).publish(tmp_path / "out", "acme/again")).version == 1


async def test_an_adapter_of_an_older_release_is_unsigned_until_it_is_signed(house: House, tmp_path: Path) -> None:
    """It has no papers at all, and its row says what they would have said."""
    sha256 = await house.trained("acme/old", tmp_path)
    registry = house.registry()
    before = await registry.resolve("acme/old")
    assert (before.signature, before.why) == ("unsigned", "nobody signed it")
    assert len(await registry.download("acme/old", tmp_path / "unsigned")) == 3
    assert (await registry.sign("acme/old@1")).signature == "good"
    assert set(artifact_store(house.settings()).papers(sha256)) == {CARD, PROVENANCE, SIGNATURE}


async def test_a_folder_that_says_of_no_base_needs_one(house: House, tmp_path: Path) -> None:
    with pytest.raises(NoAdapter, match="Say it with --base"):
        await house.registry().publish(lay(tmp_path / "made"), "acme/support")
    with pytest.raises(NoAdapter, match="known: none yet"):
        await house.row("acme/support")


@pytest.mark.parametrize("publisher", ["one", "stranger"])
async def test_papers_that_stand_are_left_to_the_adapter_that_they_are_of(
    house: House, tmp_path: Path, publisher: str
) -> None:
    """The same bytes under another role, published by whoever shares the store."""
    sha256 = await house.trained("acme/support", tmp_path)
    await house.registry().sign("acme/support")
    before = artifact_store(house.settings()).papers(sha256)
    await house.registry().download("acme/support", out := tmp_path / "out")
    copied = await house.registry(publisher).publish(out, "acme/copy")
    assert (copied.sha256, copied.signature) == (sha256, "good" if publisher == "one" else "not trusted")
    assert artifact_store(house.settings()).papers(sha256) == before
    strict = house.settings("elsewhere", house.root / "one" / "signing" / "adapters.pub")
    assert artifact_store(strict).place(sha256).is_dir()


async def test_papers_that_are_not_what_was_signed_are_written_anew(house: House, tmp_path: Path) -> None:
    sha256 = await house.trained("acme/support", tmp_path)
    await house.registry().sign("acme/support")
    fsspec.filesystem("memory").pipe_file(f"{tmp_path}/store/papers/sha256/{sha256}/{CARD}", b"# another\n")
    assert (await house.registry().resolve("acme/support")).signature == "not trusted"
    await house.registry().download("acme/support", out := tmp_path / "out")
    assert (await house.registry().publish(out, "acme/copy")).signature == "good"


async def test_a_row_that_names_the_artifact_of_another_company_has_none(
    house: House, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever may write to the log knows every hash in it."""
    sha256 = await house.trained("acme/support", tmp_path)
    await house.trained("mallory/x", tmp_path)
    registry, store = house.registry(), artifact_store(house.settings())
    row = await house.row("mallory/x")
    monkeypatch.setattr("rillfold.cli.adapters.export.in_log", lambda _work: row)
    for asked in (
        registry.resolve("mallory/x"),
        registry.sign("mallory/x"),
        registry.download("mallory/x", tmp_path / "out"),
        asyncio.to_thread(exported, "mallory/x", house.settings()),
        asyncio.to_thread(fetched, store, sha256, "mallory"),
    ):
        with pytest.raises(ArtifactRefused, match="is of acme, not of mallory"):
            await asked
    assert not store.papers(sha256) and not (tmp_path / "out").exists()
