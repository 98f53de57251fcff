"""Which adapter a role has. Here alone a role becomes the name of an adapter: it is that name, as a company of its own,
so that roles take turns in the engine as companies do."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from pathlib import Path

import msgspec

from gpu_workers.adapters.origin import base_of, facts_in
from gpu_workers.adapters.port import AdapterStore
from gpu_workers.adapters.store import Facts
from gpu_workers.errors import ArtifactRefused
from gpu_workers.refused import AdapterUnreadable, Refused
from gpu_workers.serve.port import AdapterKey, AdapterSpec, Failure, InferenceEngine, Question
from rillfold.lorax.errors import NotAnsweredNow, RoleRefused, UnknownRole
from schemas.adapters import ROLE
from schemas.company import Message
from schemas.errors import Retry


class AdapterInfo(msgspec.Struct, frozen=True, kw_only=True):
    """A role's adapter as it was registered. What happens to the folder afterwards changes nothing."""

    role: str
    version: int
    """1, and one more each time that the role is registered again."""
    path: str
    sha256: str


class LoRAxAdapterRegistry:
    """All calls from the engine's event loop."""

    def __init__(self, engine: InferenceEngine, store: AdapterStore) -> None:
        self._engine, self._store = engine, store
        self._now: dict[str, AdapterInfo] = {}
        self._versions: dict[str, int] = {}
        self._one_by_one = asyncio.Lock()

    def roles(self) -> tuple[str, ...]:
        return tuple(self._now)

    def infos(self) -> tuple[AdapterInfo, ...]:
        return tuple(self._now.values())

    def adapter_of(self, role: str) -> AdapterKey:
        if role not in self._now:
            raise UnknownRole(role, self._now)
        return AdapterKey(role, self._now[role].version)

    async def register(self, role: str, path: str | Path) -> AdapterInfo:
        """Kept, read and tried before anybody is answered by it; then the role's next questions go to it, while those
        under way finish on the one before. Raises `RoleRefused`; the role stays what it was."""
        _check_name(role, self._engine.model)
        folder = _absolute(role, path)
        async with self._one_by_one:
            spec = await asyncio.to_thread(self._kept, role, self._versions.get(role, 0) + 1, folder)
            self._versions[role] = spec.key.version
            await self._judged(spec, folder)
            assert spec.sha256 is not None
            before = self._now.get(role)
            self._now[role] = AdapterInfo(role=role, version=spec.key.version, path=str(folder), sha256=spec.sha256)
            if before is not None:
                with suppress(Refused):  # it was found broken meanwhile, and is gone
                    await self._engine.unload(role, before.version)
            return self._now[role]

    def _kept(self, role: str, version: int, folder: Path) -> AdapterSpec:
        """Copied into the store by its content: an adapter that is trained again in its folder is another one."""
        if not folder.is_dir():
            raise RoleRefused(f"role {role}: {folder} is no folder. Give the folder that PEFT saved the adapter to.")
        try:
            facts = self._facts(role, folder)
            sha256 = self._store.put(folder, facts)
            kept = self._store.place(sha256)
        except ArtifactRefused as error:
            raise RoleRefused(f"role {role}: {error}") from error
        except (OSError, Retry) as error:
            raise AdapterUnreadable(f"role {role}: {folder} cannot be read or kept now: {error}.") from error
        return AdapterSpec(
            key=AdapterKey(role, version),
            folder=kept,
            sha256=sha256,
            base_sha256=facts.base_sha256,
            tools_in_prompt=facts.tools_in_prompt,
        )

    def _facts(self, role: str, folder: Path) -> Facts:
        if (facts := facts_in(folder)) is not None:
            return facts
        base = base_of(folder) or self._engine.base_sha256
        return Facts(company=role, base_model=self._engine.model, base_sha256=base, tools_in_prompt=True)

    async def _judged(self, spec: AdapterSpec, folder: Path) -> None:
        """Read now, or, where every place in memory is taken, by a question that waits for one."""
        try:
            await self._engine.load(spec)
        except Refused as error:
            raise RoleRefused(f"role {spec.key.name}: {folder}: {error}") from error
        if spec.key in {each.key for each in self._engine.resident()}:
            return
        probe = Question(
            id=f"probe-{spec.key}",
            messages=(Message(role="user", content="?"),),
            adapter=spec.key.name,
            version=spec.key.version,
            max_tokens=1,
        )
        if isinstance(said := await self._engine.answer(probe), Failure):
            if said.again:
                await self._engine.unload(*spec.key)
                raise NotAnsweredNow(spec.key.name, said.reason, said.detail)
            raise RoleRefused(f"role {spec.key.name}: {folder}: {said.detail}")


def _check_name(role: str, model: str) -> None:
    if not isinstance(role, str) or not ROLE.fullmatch(role):
        raise RoleRefused(f"{role!r:.80} is no name of a role: 1 to 64 letters, digits, dots, _ or -.")
    if role == model:
        raise RoleRefused(f"role {role}: the base model is called so. Give the role another name.")


def _absolute(role: str, path: str | Path) -> Path:
    try:
        return Path(path).expanduser().absolute()
    except (TypeError, RuntimeError) as error:
        raise RoleRefused(f"role {role}: {path!r:.200} is no path of a folder: {error}.") from error
