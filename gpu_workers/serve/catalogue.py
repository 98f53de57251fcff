"""Which adapters are known, and which of them are in memory. Plain data and plain rules."""

from collections import Counter, OrderedDict, defaultdict
from collections.abc import Hashable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from heapq import nsmallest
from typing import Generic, Protocol, TypeVar

from gpu_workers.refused import Refused, UnknownAdapter
from gpu_workers.serve.port import AdapterKey, AdapterSpec
from gpu_workers.serve.versions import TOLD, VersionsOf
from projections.rollouts import Rollout
from schemas.adapters import company_of

AGAIN_SECONDS = 30.0
"""So long a refusal stands before the files are read again."""
OWN = 5_000
"""Versions of one company that are known at once. Where it says more, those that it said longest ago are forgotten."""


class Catalogue:
    """Every adapter that may be asked for, by company, name and version."""

    def __init__(self) -> None:
        self._names: defaultdict[str, dict[str, VersionsOf]] = defaultdict(dict)
        self._said: defaultdict[str, dict[AdapterKey, None]] = defaultdict(dict)
        """By company, in order."""
        self._count = 0

    def add(self, spec: AdapterSpec) -> list[AdapterSpec]:
        """Returns those whose place it takes."""
        said = self._said[company_of(spec.key.name)]
        said[spec.key] = None
        with self._changing(spec.key.name) as versions:
            before = versions.put(spec)
        oldest = next(iter(said)) if len(said) > OWN else None
        return [gone for gone in (before, self._forget(oldest)) if gone is not None]

    def obey(self, rollout: Rollout) -> list[AdapterSpec]:
        """Returns those that nobody is answered by any more. Of a name without a version here nothing is kept: whoever
        announces one says again what was decided."""
        if self._of(rollout.adapter) is None:
            return []
        with self._changing(rollout.adapter) as versions:
            return versions.obey(rollout)

    def held(self, key: AdapterKey) -> AdapterSpec | None:
        """What may be asked for under it now."""
        versions = self._of(key.name)
        return None if versions is None else versions.held(key.version)

    def refuse(self, spec: AdapterSpec, why: Refused, now: float) -> None:
        """Whoever asks for it is told why it is not served; older versions go on."""
        with self._changing(spec.key.name) as versions:
            versions.refuse(spec, why, now + AGAIN_SECONDS)

    def look_again(self, name: str, now: float) -> None:
        """What was wrong may be mended by now: signed, copied whole. Who asks next finds out."""
        if self._of(name) is not None:
            with self._changing(name) as versions:
                versions.look_again(now)

    def remove(self, name: str, version: int | None) -> list[AdapterSpec]:
        """One version, or all of them."""
        gone = self._known(name).all() if version is None else [self.find(name, version)]
        with self._changing(name) as versions:
            for spec in gone:
                versions.drop(spec.key.version)
                self._said[company_of(name)].pop(spec.key, None)
        return gone

    def find(self, name: str, version: int | None) -> AdapterSpec:
        """The version that answers for the name where none is asked for. Never another adapter, never the base."""
        return self._known(name).find(version)

    def keys(self, company: str | None = None) -> Iterator[AdapterKey]:
        """Of all that answers by its version; a company's alone."""
        return (AdapterKey(each.name, version) for each in self._each(company) for version in each.asked)

    def answering(self, company: str | None = None) -> Iterator[AdapterKey]:
        """Of each name that answers without a version, the one that does."""
        each = ((versions.name, versions.standing()) for versions in self._each(company))
        return (AdapterKey(name, version) for name, version in each if version is not None)

    def __len__(self) -> int:
        """How many answer by their version."""
        return self._count

    def _of(self, name: str) -> VersionsOf | None:
        return self._names.get(company_of(name), {}).get(name)

    def _each(self, company: str | None) -> Iterator[VersionsOf]:
        own = self._names.values() if company is None else (self._names.get(company, {}),)
        return (versions for names in own for versions in names.values())

    @contextmanager
    def _changing(self, name: str) -> Iterator[VersionsOf]:
        """Counts what it changes, and keeps no name of which nothing is left."""
        names = self._names[company_of(name)]
        versions = names.setdefault(name, VersionsOf(name))
        before = len(versions.asked)
        yield versions
        self._count += len(versions.asked) - before
        if versions.empty():
            del names[name]
        if not names:
            del self._names[company_of(name)]

    def _forget(self, key: AdapterKey | None) -> AdapterSpec | None:
        if key is None:
            return None
        del self._said[company_of(key.name)][key]
        with self._changing(key.name) as versions:
            gone = versions.held(key.version)
            versions.drop(key.version)
        return gone

    def _known(self, name: str) -> VersionsOf:
        """Or says which are, of the same company and of no other."""
        if (versions := self._of(name)) is not None:
            return versions
        company = company_of(name)
        there = nsmallest(TOLD + 1, (each.name for each in self._each(company)))
        told = f"{', '.join(there[:TOLD])}{' and more' if there[TOLD:] else ''}" or "none"
        raise UnknownAdapter(
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
