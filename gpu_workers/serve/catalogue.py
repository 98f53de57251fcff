"""Which adapters are known, and which of them are in memory. Plain data and plain rules."""

from collections import Counter, OrderedDict
from collections.abc import Hashable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Generic, Protocol, TypeVar

from gpu_workers.refused import NotPromoted, Refused, UnknownAdapter, UnknownVersion, WithdrawnVersion
from gpu_workers.serve.port import AdapterKey, AdapterSpec
from projections.rollouts import Rollout, answering
from schemas.adapters import company_of

AGAIN_SECONDS = 30.0
"""So long a refusal stands before the files are read again."""
TOLD = 20
"""Adapters that are named to who asks for one that nobody has."""


class Catalogue:
    """Every adapter that may be asked for, by name and version."""

    def __init__(self) -> None:
        self._versions: dict[str, dict[int, AdapterSpec]] = {}
        self._refused: dict[str, dict[int, Refused]] = {}
        self._aside: dict[AdapterKey, tuple[AdapterSpec, float]] = {}
        """What was refused, and from when on it may be looked at again."""
        self._rollouts: dict[str, Rollout] = {}

    def add(self, spec: AdapterSpec) -> AdapterSpec | None:
        """Returns the one whose place it takes."""
        versions = self._versions.setdefault(spec.key.name, {})
        self._refused.get(spec.key.name, {}).pop(spec.key.version, None)
        self._aside.pop(spec.key, None)
        before, versions[spec.key.version] = versions.get(spec.key.version), spec
        return before

    def obey(self, rollout: Rollout) -> list[AdapterSpec]:
        """Returns those that nobody is answered by any more."""
        self._rollouts[rollout.adapter] = rollout
        versions = self._versions.get(rollout.adapter, {})
        return [spec for version, spec in versions.items() if rollout.is_withdrawn(version)]

    def held(self, key: AdapterKey) -> AdapterSpec | None:
        """What may be asked for under it now."""
        return self._versions.get(key.name, {}).get(key.version)

    def refuse(self, spec: AdapterSpec, why: Refused, now: float) -> None:
        """Whoever asks for it is told why it is not served; older versions go on."""
        key = spec.key
        self._aside[key] = spec, now + AGAIN_SECONDS
        versions = self._versions.get(key.name, {})
        versions.pop(key.version, None)
        if not versions:
            self._versions.pop(key.name, None)
        self._refused.setdefault(key.name, {})[key.version] = why

    def look_again(self, name: str, now: float) -> None:
        """What was wrong may be mended by now: signed, copied whole. Who asks next finds out."""
        for version in list(self._refused.get(name, {})):
            spec, again = self._aside[AdapterKey(name, version)]
            if now >= again:
                self.add(spec)

    def remove(self, name: str, version: int | None) -> list[AdapterSpec]:
        """One version, or all of them."""
        gone = [self.find(name, version)] if version is not None else list(self._of(name).values())
        for spec in gone:
            del self._versions[name][spec.key.version]
        for refused in self._refused.pop(name, {}) if version is None else ():
            self._aside.pop(AdapterKey(name, refused), None)
        if not self._versions[name]:
            del self._versions[name]
        return gone

    def find(self, name: str, version: int | None) -> AdapterSpec:
        """The version that answers for the name where none is asked for. Never another adapter, never the base."""
        refused = self._refused.get(name, {})
        if version in refused:
            raise refused[version]
        if refused and name not in self._versions:
            raise refused[max(refused)]
        versions = self._of(name)
        if version is None:
            return versions[self._answers(name)]
        if self._withdrawn(name, version):
            raise WithdrawnVersion(f"{AdapterKey(name, version)} is withdrawn. {self._instead(name)}")
        if version not in versions:
            raise UnknownVersion(f"adapter {name} has no version {version} here. {self._instead(name)}")
        return versions[version]

    def keys(self) -> tuple[AdapterKey, ...]:
        """Of all that answers by its version."""
        return tuple(AdapterKey(name, version) for name in self._versions for version in self._asked(name))

    def answering(self) -> tuple[AdapterKey, ...]:
        """Of each name that answers without a version, the one that does."""
        each = ((name, self._standing(name)) for name in self._versions)
        return tuple(AdapterKey(name, version) for name, version in each if version is not None)

    def _answers(self, name: str) -> int:
        if (version := self._standing(name)) is not None:
            return version
        if (damaged := self._standing(name, self._refused.get(name, {}))) is not None:
            raise self._refused[name][damaged]
        raise NotPromoted(self._instead(name))

    def _standing(self, name: str, known: Mapping[int, object] | None = None) -> int | None:
        versions = self._versions.get(name, {}) if known is None else known
        rollout = self._rollouts.get(name)
        return max(versions, default=None) if rollout is None else answering(rollout, versions)

    def _withdrawn(self, name: str, version: int) -> bool:
        return name in self._rollouts and self._rollouts[name].is_withdrawn(version)

    def _asked(self, name: str) -> list[int]:
        return [version for version in self._versions[name] if not self._withdrawn(name, version)]

    def _instead(self, name: str) -> str:
        """Who answers, and how to ask for another."""
        standing, known = self._standing(name), sorted(self._asked(name))
        now = (
            f"No version is promoted to answer for {name}" if standing is None else f"Version {standing} answers for it"
        )
        told = f"{', '.join(map(str, known[-TOLD:]))}{' and older ones' if known[TOLD:] else ''}"
        return f"{now}; {f'ask for one by its number, as in {name}@{known[-1]}: {told}.' if known else 'none is left.'}"

    def _of(self, name: str) -> dict[int, AdapterSpec]:
        if name not in self._versions:
            raise UnknownAdapter(self._unknown(name))
        return self._versions[name]

    def _unknown(self, name: str) -> str:
        """Names those of the same company, and of no other."""
        company = company_of(name)
        there = sorted(each for each in self._versions if company_of(each) == company)
        told = f"{', '.join(there[:TOLD])}{' and more' if there[TOLD:] else ''}" or "none"
        return (
            f"adapter {name} is not known here; of {company!r} there are: {told}. A worker serves what adapter.ready "
            "in the log names, `rillfold serve` what its --adapter names."
        )


class Sized(Protocol):
    @property
    def bytes(self) -> int: ...


Weights = TypeVar("Weights", bound=Sized)


@dataclass
class _Held(Generic[Weights]):
    """One content: in memory, or on its way there."""

    weights: Weights | None = None
    names: dict[AdapterSpec, None] = field(default_factory=dict)
    """Under which it was asked for, and is not withdrawn."""
    users: Counter[str] = field(default_factory=Counter)
    """By company."""


class Residency(Generic[Weights]):
    """The adapters in memory, and those on their way there: never more than `capacity`, whoever asks.

    They are kept by content: names and versions of one artifact share its memory, and what a name held before is
    never its new content. Who wants one pins it before it is read. The least recently asked for goes first, and none
    that is pinned. One company (the name before the slash) pins at most `share` contents at once.
    """

    def __init__(self, capacity: int, share: int) -> None:
        self._capacity, self._share = capacity, share
        self._held: OrderedDict[Hashable, _Held[Weights]] = OrderedDict()
        self._by_company: Counter[str] = Counter()
        self._in_use = 0
        self.hits = self.loads = self.evictions = 0

    def get(self, spec: AdapterSpec) -> Weights | None:
        held = self._held.get(spec.content)
        if held is None or held.weights is None:
            return None
        self._held.move_to_end(spec.content)
        return held.weights

    def put(self, spec: AdapterSpec, weights: Weights) -> None:
        """Of a pinned one: its room is there."""
        self._held[spec.content].weights = weights
        self._held.move_to_end(spec.content)

    def drop(self, spec: AdapterSpec) -> None:
        """Unless another name has the same content, or somebody uses it: then it leaves as the others do."""
        if (held := self._held.get(spec.content)) is not None:
            held.names.pop(spec, None)
            if not held.names and not held.users:
                del self._held[spec.content]

    def pin(self, spec: AdapterSpec) -> bool:
        """False: no room, until somebody unpins."""
        held, company = self._held.get(spec.content) or _Held(), company_of(spec.key.name)
        if not held.users and self._in_use >= self._capacity:
            return False
        if company not in held.users and self.pinned(spec) >= self._share:
            return False
        self._in_use += not held.users
        self._by_company[company] += company not in held.users
        self._held[spec.content] = held
        held.names[spec] = None
        held.users[company] += 1
        self._make_room()
        return True

    def unpin(self, spec: AdapterSpec) -> None:
        held, company = self._held[spec.content], company_of(spec.key.name)
        held.users[company] -= 1
        if not held.users[company]:
            del held.users[company]
            self._by_company -= Counter([company])
            self._in_use -= not held.users
        if held.weights is None and not held.users:  # it never came
            del self._held[spec.content]

    def pinned(self, spec: AdapterSpec) -> int:
        """How many its company has pinned."""
        return self._by_company[company_of(spec.key.name)]

    def __iter__(self) -> Iterator[tuple[AdapterSpec, Weights, int]]:
        """(spec, weights, users) of every name, the least recently used content first."""
        for held in self._held.values():
            if held.weights is not None:
                for spec in held.names:
                    yield spec, held.weights, held.users.total()

    def __len__(self) -> int:
        """Contents in memory, however many names they have."""
        return sum(1 for held in self._held.values() if held.weights is not None)

    def _make_room(self) -> None:
        for content in [content for content, held in self._held.items() if not held.users]:
            if len(self._held) <= self._capacity:
                return
            del self._held[content]
            self.evictions += 1
