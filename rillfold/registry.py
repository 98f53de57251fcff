"""The registry of adapters: which there are, where they lie, who signed them; to publish one, and to take one away."""

from __future__ import annotations

import asyncio
import shutil
from pathlib import Path
from typing import Literal, NamedTuple

import msgspec

from gpu_workers.adapters.brought import Brought, read_brought
from gpu_workers.adapters.origin import fetched
from gpu_workers.adapters.papers import BROUGHT, has_papers, put_papers
from gpu_workers.adapters.port import AdapterStore
from gpu_workers.adapters.signature import SIGNATURE
from gpu_workers.adapters.store import CONFIG, MANIFEST, TENSORS, Facts
from gpu_workers.bases.files import file_sha256
from gpu_workers.errors import NotSigned
from gpu_workers.export.whole import whole
from gpu_workers.serve.port import AdapterKey, spelled
from projections.lora_adapters import LORA_ADAPTERS, Adapter
from rillfold.adapter_keys import adapter_keys, make_own
from rillfold.event_log import first
from rillfold.settings import Settings
from rillfold.wiring import artifact_store
from schemas.adapters import ROLE, AdapterReady
from schemas.errors import Stop
from schemas.topics import TopicNames
from streams.fold.view import View
from streams.log.outgoing import to_outgoing
from streams.log.port import EventLog

KNOWN_VERSIONS = 20
TRIES = 5
NOTHING = "none"
"""Of a brought adapter's dataset: nobody here knows it."""


class PublishedBefore(Stop):
    """What is to be published is there, and only promoting it is left."""


class NoAdapter(Stop):
    """An adapter that the log does not know."""


class BadName(Stop):
    """Something that no adapter can be called."""


class FolderTaken(Stop):
    """A folder that holds another adapter than the one that is to be written there."""


class Resolved(msgspec.Struct, frozen=True, kw_only=True):
    """All that somebody needs who is to fetch an adapter and to know that it is the one."""

    adapter: str
    version: int
    sha256: str
    url: str
    base_model: str
    base_sha256: str
    signature: Literal["good", "unsigned", "not trusted"]
    signed_by: str = ""
    """The id of the key."""
    why: str = ""
    """Where the signature is not good."""


async def find(log: EventLog, names: TopicNames, name: str) -> Adapter:
    """Its newest version where none is named."""
    adapter, version = spelled(name)
    rows = (await View(log, names, LORA_ADAPTERS).catch_up()).values()
    found = [row for row in rows if row.adapter == adapter and row.event and version in (None, row.version)]
    if not found:
        versions = sorted((row.adapter, row.version) for row in rows if row.event)
        known = ", ".join(str(AdapterKey(*each)) for each in versions[-KNOWN_VERSIONS:]) or "none yet"
        raise NoAdapter(f"No adapter {name!r} is ready; known: {known}. Train one with `rillfold train`.")
    return max(found, key=lambda row: row.version)


class BaseHash(NamedTuple):
    """A base model as its adapters name it."""

    name: str
    sha256: str


class AdapterRegistry:
    """The log says which adapters there are, the store holds them."""

    def __init__(self, log: EventLog, settings: Settings) -> None:
        self._log, self._names, self._settings = log, settings.topic_names(), settings

    async def resolve(self, name: str) -> Resolved:
        """`company/role` or `company/role@version`. Raises `NoAdapter`."""
        row = await find(self._log, self._names, name)
        return await asyncio.to_thread(_resolved, artifact_store(self._settings), row)

    async def download(self, name: str, out: Path) -> list[Path]:
        """PEFT's two files, their manifest and their papers: a folder that others load, and verify by the signature.
        Nothing is written unless all of it is what the log says."""
        return await self.fetch(await find(self._log, self._names, name), out)

    async def fetch(self, row: Adapter, out: Path) -> list[Path]:
        return await asyncio.to_thread(_downloaded, artifact_store(self._settings), row, out)

    async def sign(self, name: str) -> Resolved:
        """With the key of this installation: somebody here knows the adapter, whoever made it."""
        row = await find(self._log, self._names, name)
        await asyncio.to_thread(_sign, self._signing(), row)
        return await self.resolve(str(AdapterKey(row.adapter, row.version)))

    async def publish(
        self, folder: Path, adapter: str, base: BaseHash | None = None, promote: bool = False
    ) -> Resolved:
        """An adapter that PEFT saved somewhere, as the next version of `company/role`; by its number alone, unless it
        is to answer at once. The very same bytes are no new version. Without a `base` the folder's manifest says it."""
        company, store = company_of(adapter), self._signing()
        brought = await asyncio.to_thread(read_brought, folder, adapter_keys(self._settings))
        facts = _facts(folder, company, brought, base)
        sha256 = await asyncio.to_thread(store.put, folder, facts)
        kept = await asyncio.to_thread(has_papers, store, sha256)
        for tried in range(TRIES + 1):
            rows = (await View(self._log, self._names, LORA_ADAPTERS).catch_up()).values()
            own = {row.version: row for row in rows if row.adapter == adapter and row.event}
            if same := next((row for row in own.values() if row.sha256 == sha256), None):
                if promote and not same.promoted:
                    raise PublishedBefore(
                        f"These bytes are {adapter}@{same.version} already: `rillfold adapters promote "
                        f"{adapter}@{same.version} --reason ...` lets it answer for its role."
                    )
                return await self.resolve(str(AdapterKey(adapter, same.version)))
            if tried == TRIES:
                break
            key = AdapterKey(adapter, 1 + max(own, default=0))
            ready = _ready(key, sha256, store.uri(sha256), facts, brought, promote)
            if not kept:  # another role may have the very same bytes, and then these are its papers
                await asyncio.to_thread(_keep_papers, store, ready, brought.card)
            await self._log.append([to_outgoing(ready, self._names)])
        raise NoAdapter(f"{adapter}: others published versions of it all the time. Publish it again.")

    def _signing(self) -> AdapterStore:
        """Its own key is among those that count."""
        make_own(self._settings)
        return artifact_store(self._settings)


def _ready(key: AdapterKey, sha256: str, uri: str, facts: Facts, brought: Brought, promote: bool) -> AdapterReady:
    envelope = first(facts.company)
    return AdapterReady(
        **envelope,
        adapter=key.name,
        adapter_version=key.version,
        run=envelope["id"],
        sha256=sha256,
        uri=uri,
        method=BROUGHT,
        rank=brought.rank,
        alpha=brought.alpha,
        base_model=facts.base_model,
        base_sha256=facts.base_sha256,
        manifest=NOTHING,
        ranges=(),
        seed=0,
        identity=msgspec.json.encode({"tools_in_prompt": facts.tools_in_prompt}).decode(),
        promoted=promote,
    )


def _keep_papers(store: AdapterStore, ready: AdapterReady, card: bytes | None) -> None:
    row = LORA_ADAPTERS.fold(LORA_ADAPTERS.initial(str(LORA_ADAPTERS.key(ready))), ready)
    put_papers(store, row, card=card)


def _sign(store: AdapterStore, row: Adapter) -> None:
    """What its papers said stays as it was; an older release wrote none."""
    store.files(row.sha256, row.company)
    if papers := {name: body for name, body in store.papers(row.sha256).items() if name != SIGNATURE}:
        store.put_papers(row.sha256, str(AdapterKey(row.adapter, row.version)), papers)
    else:
        put_papers(store, row)


def _resolved(store: AdapterStore, row: Adapter) -> Resolved:
    store.files(row.sha256, row.company)
    signature: Literal["good", "unsigned", "not trusted"] = "good"
    signer = why = ""
    try:
        signer = store.signer(row.sha256)
    except NotSigned as error:
        signature, why = "not trusted" if SIGNATURE in store.papers(row.sha256) else "unsigned", str(error)
    return Resolved(
        adapter=row.adapter,
        version=row.version,
        sha256=row.sha256,
        url=store.uri(row.sha256),
        base_model=row.base_model,
        base_sha256=row.base_sha256,
        signature=signature,
        signed_by=signer,
        why=why,
    )


def _downloaded(store: AdapterStore, row: Adapter, out: Path) -> list[Path]:
    (folder, _facts), papers = fetched(store, row.sha256, row.company), store.papers(row.sha256)
    names = [MANIFEST, *papers, TENSORS, CONFIG]  # the configuration last: without it, a folder is no adapter yet
    again = (out / MANIFEST).is_file() and file_sha256(out / MANIFEST) == row.sha256
    if not again and (taken := [name for name in names if (out / name).exists()]):
        raise FolderTaken(f"{out}: has {', '.join(taken)} already, of something else. Give an empty folder.")
    for name in names:
        with whole(out / name) as draft:
            if name in papers:
                draft.write_bytes(papers[name])
            else:
                shutil.copyfile(folder / name, draft)
    return [out / name for name in sorted(names)]


def company_of(adapter: str) -> str:
    company, _, role = adapter.partition("/")
    if not company or not ROLE.fullmatch(role):
        raise BadName(f"{adapter!r:.200} is no name of an adapter. Write COMPANY/ROLE; the log counts the versions.")
    return company


def _facts(folder: Path, company: str, brought: Brought, base: BaseHash | None) -> Facts:
    said = brought.facts
    if base is None:
        if said is None:
            raise NoAdapter(f"{folder}: nothing in it says which base it is for. Say it with --base.")
        base = BaseHash(said.base_model, said.base_sha256)
    return Facts(
        company=company,
        base_model=base.name,
        base_sha256=base.sha256,
        tools_in_prompt=said.tools_in_prompt if said else True,
    )
