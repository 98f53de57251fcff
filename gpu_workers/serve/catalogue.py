"""Which adapters are known, and which of them are in memory. Plain data and plain rules."""

from collections import Counter, OrderedDict
from collections.abc import Iterator
from typing import Generic, Protocol, TypeVar

from gpu_workers.refused import Refused, UnknownAdapter, UnknownVersion
from gpu_workers.serve.port import AdapterKey, AdapterSpec
from schemas.adapters import company_of


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
    """The adapters in memory, and those on their way there: never more than `capacity`, whoever asks.

    Who wants one pins it before it is read. The least recently asked for goes first, and none that is pinned. One
    company (the name before the slash) pins at most `share` at once.
    """

    def __init__(self, capacity: int, share: int) -> None:
        self._capacity, self._share = capacity, share
        self._held: OrderedDict[AdapterSpec, Weights] = OrderedDict()
        self._users: Counter[AdapterSpec] = Counter()
        self._by_company: Counter[str] = Counter()
        self.hits = self.loads = self.evictions = 0

    def get(self, spec: AdapterSpec) -> Weights | None:
        if spec in self._held:
            self._held.move_to_end(spec)
        return self._held.get(spec)

    def put(self, spec: AdapterSpec, weights: Weights) -> None:
        """Of a pinned one: its room is there."""
        self._held[spec] = weights
        self._held.move_to_end(spec)

    def drop(self, spec: AdapterSpec) -> None:
        """Unless somebody uses it: then it leaves as the others do."""
        if not self._users[spec]:
            self._held.pop(spec, None)

    def pin(self, spec: AdapterSpec) -> bool:
        """False: no room, until somebody unpins."""
        if spec not in self._users:
            if len(self._users) >= self._capacity or self.pinned(spec) >= self._share:
                return False
            self._by_company[company_of(spec.key.name)] += 1
        self._users[spec] += 1
        self._make_room()
        return True

    def unpin(self, spec: AdapterSpec) -> None:
        self._users[spec] -= 1
        if not self._users[spec]:
            del self._users[spec]
            self._by_company -= Counter([company_of(spec.key.name)])

    def pinned(self, spec: AdapterSpec) -> int:
        """How many its company has pinned."""
        return self._by_company[company_of(spec.key.name)]

    def __iter__(self) -> Iterator[tuple[AdapterSpec, Weights, int]]:
        """(spec, weights, users), the least recently used first."""
        return iter([(spec, weights, self._users[spec]) for spec, weights in self._held.items()])

    def _make_room(self) -> None:
        coming = len(set(self._users) - set(self._held))
        for spec in [spec for spec in self._held if not self._users[spec]]:
            if len(self._held) + coming <= self._capacity:
                return
            del self._held[spec]
            self.evictions += 1
