"""Which adapters are known, and which of them are in memory. Plain data and plain rules."""

from __future__ import annotations

from collections import Counter, OrderedDict
from collections.abc import Iterator
from typing import Generic, Protocol, TypeVar

from gpu_workers.serve.errors import Refused, UnknownAdapter, UnknownVersion
from gpu_workers.serve.port import AdapterKey, AdapterSpec


class Catalogue:
    """Every adapter that may be asked for, by name and version."""

    def __init__(self) -> None:
        self._versions: dict[str, dict[int, AdapterSpec]] = {}
        self._refused: dict[str, dict[int, Refused]] = {}

    def add(self, spec: AdapterSpec) -> None:
        self._versions.setdefault(spec.key.name, {})[spec.key.version] = spec
        self._refused.get(spec.key.name, {}).pop(spec.key.version, None)

    def refuse(self, key: AdapterKey, why: Refused) -> None:
        """Whoever asks for it is told why it is not served; older versions go on."""
        versions = self._versions.get(key.name, {})
        versions.pop(key.version, None)
        if not versions:
            self._versions.pop(key.name, None)
        self._refused.setdefault(key.name, {})[key.version] = why

    def remove(self, name: str, version: int | None) -> list[AdapterSpec]:
        """One version, or all of them."""
        gone = [self.find(name, version)] if version is not None else list(self._of(name).values())
        for spec in gone:
            del self._versions[name][spec.key.version]
        if not self._versions[name]:
            del self._versions[name]
        return gone

    def find(self, name: str, version: int | None) -> AdapterSpec:
        """The newest version where none is asked for. Never another adapter, never the base."""
        refused = self._refused.get(name, {})
        if version in refused:
            raise refused[version]
        if refused and name not in self._versions:
            raise refused[max(refused)]
        versions = self._of(name)
        if version is None:
            return versions[max(versions)]
        if version not in versions:
            known = ", ".join(map(str, sorted(versions)))
            raise UnknownVersion(f"adapter {name} has no version {version} here; known are {known}.")
        return versions[version]

    def keys(self) -> tuple[AdapterKey, ...]:
        return tuple(spec.key for versions in self._versions.values() for spec in versions.values())

    def _of(self, name: str) -> dict[int, AdapterSpec]:
        if name not in self._versions:
            raise UnknownAdapter(f"adapter {name} is not known here; its adapter.ready must be in the log.")
        return self._versions[name]


class Sized(Protocol):
    @property
    def bytes(self) -> int: ...


Weights = TypeVar("Weights", bound=Sized)


class Residency(Generic[Weights]):
    """The adapters in memory: the least recently asked for goes first, and none that somebody waits for."""

    def __init__(self, capacity: int) -> None:
        self._capacity = capacity
        self._held: OrderedDict[AdapterKey, Weights] = OrderedDict()
        self._users: Counter[AdapterKey] = Counter()
        self.hits = self.loads = self.evictions = 0

    def get(self, key: AdapterKey) -> Weights | None:
        if key in self._held:
            self._held.move_to_end(key)
        return self._held.get(key)

    def put(self, key: AdapterKey, weights: Weights) -> None:
        self._held[key] = weights
        self._held.move_to_end(key)
        self._shrink()

    def drop(self, key: AdapterKey) -> None:
        self._held.pop(key, None)

    def pin(self, key: AdapterKey) -> None:
        self._users[key] += 1

    def unpin(self, key: AdapterKey) -> None:
        self._users[key] -= 1
        if not self._users[key]:
            del self._users[key]
        self._shrink()

    def __iter__(self) -> Iterator[tuple[AdapterKey, Weights, int]]:
        """(key, weights, users), the least recently used first."""
        return iter([(key, weights, self._users[key]) for key, weights in self._held.items()])

    def _shrink(self) -> None:
        for key in list(self._held):
            if len(self._held) <= self._capacity:
                return
            if not self._users[key]:
                del self._held[key]
                self.evictions += 1
