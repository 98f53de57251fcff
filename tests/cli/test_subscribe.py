"""`rillfold adapters subscribe`: what is promoted comes once, verified, whatever is in the way of others."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path

import fsspec
import pytest

from gpu_workers.adapters.check import CONFIG, TENSORS
from gpu_workers.adapters.store import MANIFEST
from gpu_workers.bases.files import file_sha256
from projections.lora_adapters import Adapter
from rillfold.registry import AdapterRegistry, BaseHash
from rillfold.settings import Settings
from rillfold.subscription import POSITION, AdapterSubscription, AnotherFilter, Arrived, PlaceUnknown
from schemas.adapters import AdapterReady, RolloutDecided
from schemas.envelope import Event
from schemas.errors import Retry
from schemas.topics import TopicNames
from streams.log.memory import MemoryLog
from streams.log.outgoing import to_outgoing
from streams.log.port import TopicSpec
from tests.support.laid import lay

BASE = BaseHash("tiny", "0" * 64)


class Shelf:
    """A log in memory, a store in memory, and one who publishes."""

    def __init__(self, root: Path) -> None:
        self.root, self.log, self.said = root, MemoryLog(), list[str]()
        self._made = self._waits = 0

    def settings(self) -> Settings:
        store = f"memory:/{self.root}/store"
        return Settings(data_dir=self.root / "data", cache_dir=self.root / "cache", adapter_store=store)

    async def publish(self, adapter: str, promote: bool = True) -> str:
        """Another version each time. Its hash."""
        self._made += 1
        made = lay(self.root / "made", config={"lora_alpha": self._made})
        registry = AdapterRegistry(self.log, self.settings())
        return (await registry.publish(made, adapter, BASE, promote)).sha256

    async def say(self, event: Event) -> None:
        await self.log.append([to_outgoing(event, TopicNames())])

    async def decide(self, adapter: str, version: int, percent: int) -> None:
        told = {"company": adapter.split("/")[0], "adapter": adapter, "adapter_version": version, "percent": percent}
        await self.say(RolloutDecided(id=f"{adapter}-{version}-{percent}", time=1, correlation="c", **told))

    async def arrive(self, waits: int = 0, **only: str) -> list[tuple[str, int]]:
        """What comes until it waits once more than so often; each is what the log says."""
        self._waits = waits
        subscription = AdapterSubscription(
            self.log, self.settings(), self.root / "into", **only, say=self.said.append, sleep=self._no_more
        )
        come: list[Arrived] = []
        try:
            async for each in subscription.arriving():
                come.append(each)
        except asyncio.CancelledError:
            pass
        for each in come:
            assert each.folder == self.root / "into" / each.adapter / str(each.version)
            assert file_sha256(each.folder / MANIFEST) == each.sha256
            assert {TENSORS, CONFIG} <= {file.name for file in each.folder.iterdir()}
        return [(each.adapter, each.version) for each in come]

    async def _no_more(self, _seconds: float) -> None:
        self._waits -= 1
        if self._waits < 0:
            raise asyncio.CancelledError


async def shelf(root: Path) -> Shelf:
    made = Shelf(root)
    await made.log.create([TopicSpec("adapter-ready", 2)])
    return made


def by_name(come: Sequence[tuple[str, int]]) -> list[tuple[str, int]]:
    return sorted(come)


async def test_it_begins_with_what_answers_and_goes_on_where_it_was(tmp_path: Path) -> None:
    it = await shelf(tmp_path)
    for adapter in ("acme/support", "acme/support", "globex/sales"):
        await it.publish(adapter)
    await it.publish("acme/support", promote=False)
    assert by_name(await it.arrive()) == [("acme/support", 2), ("globex/sales", 1)]
    assert await it.arrive() == [], "once"
    await it.publish("acme/support")
    await it.publish("acme/support")
    assert await it.arrive() == [("acme/support", 4), ("acme/support", 5)], "each that was promoted meanwhile"
    await it.decide("acme/support", 3, 100)
    await it.decide("acme/support", 3, 0)
    assert await it.arrive() == [("acme/support", 5)], "by hand, and back: what answers now"
    assert not it.said


async def test_it_knows_companies_and_roles_apart(tmp_path: Path) -> None:
    it = await shelf(tmp_path)
    for adapter in ("acme/support", "acme/sales", "globex/sales"):
        await it.publish(adapter)
    assert await it.arrive(company="acme", role="sales") == [("acme/sales", 1)]
    assert by_name(path.name for path in (tmp_path / "into").iterdir()) == [POSITION, "acme"]
    with pytest.raises(AnotherFilter, match=r"follows acme/sales, .*one filter, one folder"):
        await it.arrive(company="acme", role="support")


async def test_what_cannot_be_had_or_is_a_lie_holds_up_no_other(tmp_path: Path) -> None:
    it = await shelf(tmp_path)
    await it.publish("globex/first")
    damaged = await it.publish("globex/sales")
    files, at = fsspec.filesystem("memory"), f"{tmp_path}/store/sha256/{damaged}/{TENSORS}"
    files.pipe_file(at, b"rubbish")
    (tmp_path / "cache").rename(tmp_path / "away")
    lie = {"adapter": "globex/../../x", "adapter_version": 1, "run": "r", "sha256": damaged, "uri": "file:///a"}
    told = {"method": "lora", "rank": 2, "alpha": 4.0, "base_model": "tiny", "base_sha256": "0" * 64, "seed": 0}
    await it.say(
        AdapterReady(
            id="lie", company="globex", time=1, correlation="c", manifest="d", ranges=(), identity="{}", **lie, **told
        )
    )
    await it.publish("globex/support")
    assert by_name(await it.arrive()) == [("globex/first", 1), ("globex/support", 1)]
    assert len(it.said) == 1 and "globex/sales@1" in it.said[0] and TENSORS in it.said[0]
    assert {path.name for path in (tmp_path / "into" / "globex").iterdir()} >= {"first", "support"}
    assert not (tmp_path / "x").exists()


@pytest.mark.parametrize("published", [1, 3, 5])
async def test_a_place_in_another_log_is_not_believed(tmp_path: Path, published: int) -> None:
    """The topic was made anew, or the folder belongs to another installation: shorter, as long, longer."""
    it = await shelf(tmp_path)
    for _ in range(3):
        await it.publish("acme/support")
    assert await it.arrive() == [("acme/support", 3)]
    other = await shelf(tmp_path)
    for _ in range(published):
        await other.publish("acme/support")
    with pytest.raises(PlaceUnknown, match=POSITION):
        await other.arrive()
    (tmp_path / "into").rename(tmp_path / "of_it")
    assert await other.arrive() == [("acme/support", published)]
    (tmp_path / "into").rename(tmp_path / "of_the_other")
    (tmp_path / "of_it").rename(tmp_path / "into")
    assert await it.arrive() == [], "and in its own it goes on"


async def test_a_place_that_the_log_holds_no_longer_is_not_believed(tmp_path: Path) -> None:
    """What stood between it and the first record that is left is not known."""
    it = await shelf(tmp_path)
    await it.publish("acme/support")
    assert await it.arrive() == [("acme/support", 1)]
    for _ in range(3):
        await it.publish("acme/support")
    for partition, end in (await it.log.ends("adapter-ready")).items():
        it.log.truncate("adapter-ready", partition, max(0, end - 1))
    with pytest.raises(PlaceUnknown, match=POSITION):
        await it.arrive()


async def test_what_comes_to_an_empty_topic_comes_each(tmp_path: Path) -> None:
    it = await shelf(tmp_path)
    assert await it.arrive() == []
    await it.publish("acme/support")
    await it.publish("acme/support")
    assert await it.arrive() == [("acme/support", 1), ("acme/support", 2)]


class Away(Retry):
    """As a store that does not answer."""


@pytest.mark.parametrize("when", ["before", "during"])
async def test_what_is_withdrawn_while_the_store_is_away_or_hands_it_over_does_not_come(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, when: str
) -> None:
    it = await shelf(tmp_path)
    await it.publish("acme/support")
    assert await it.arrive() == [("acme/support", 1)]
    await it.publish("acme/support")
    fetched, asked = AdapterRegistry.fetch, 0

    async def fetch(self: AdapterRegistry, row: Adapter, out: Path) -> list[Path]:
        nonlocal asked
        if (asked := asked + 1) == 1:
            if when == "before":
                await it.decide("acme/support", 2, 0)
                raise Away("The store is away.")
            files = await fetched(self, row, out)
            await it.decide("acme/support", 2, 0)
            return files
        return await fetched(self, row, out)

    monkeypatch.setattr(AdapterRegistry, "fetch", fetch)
    assert await it.arrive(waits=1 if when == "before" else 0) == [("acme/support", 1)], "who answers in its place"
