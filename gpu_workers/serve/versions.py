"""The versions of one adapter's name: which may be asked for, and why the others may not."""

from bisect import bisect_left, bisect_right, insort
from collections.abc import Collection
from heapq import nlargest
from typing import NamedTuple

from gpu_workers.refused import NotPromoted, Refused, UnknownVersion, WithdrawnVersion
from gpu_workers.serve.port import AdapterKey, AdapterSpec
from projections.rollouts import Rollout, answering, named_anew
from schemas.adapters import company_of

TOLD = 20
"""Versions, or names, that are named to who asks for one that is not there."""


class RefusedFor(NamedTuple):
    """What was refused, and from when on it may be looked at again."""

    spec: AdapterSpec
    why: Refused
    again: float


class VersionsOf:
    """Each is in one of three places. What an event costs does not grow with how many there are."""

    def __init__(self, name: str) -> None:
        self.name, self.rollout = name, Rollout(company=company_of(name), adapter=name)
        self.asked: dict[int, AdapterSpec] = {}
        self.withdrawn: dict[int, AdapterSpec] = {}
        self.refused: dict[int, RefusedFor] = {}
        self.ruled = False
        """Whether anything was decided of them; else the newest answers."""
        self._ascending: list[int] = []
        """Those that are not refused."""

    def put(self, spec: AdapterSpec) -> AdapterSpec | None:
        """Returns the one whose place it takes."""
        version = spec.key.version
        before = self.held(version)
        self.drop(version)
        (self.withdrawn if self.rollout.is_withdrawn(version) else self.asked)[version] = spec
        insort(self._ascending, version)
        return before

    def drop(self, version: int) -> None:
        self.refused.pop(version, None)
        if self.asked.pop(version, None) or self.withdrawn.pop(version, None):
            del self._ascending[bisect_left(self._ascending, version)]

    def refuse(self, spec: AdapterSpec, why: Refused, again: float) -> None:
        self.drop(spec.key.version)
        self.refused[spec.key.version] = RefusedFor(spec, why, again)

    def look_again(self, now: float) -> None:
        for aside in [aside for aside in self.refused.values() if now >= aside.again]:
            self.put(aside.spec)

    def obey(self, rollout: Rollout) -> list[AdapterSpec]:
        """Returns those that nobody is answered by any more."""
        before, self.rollout, self.ruled = self.rollout, rollout, True
        gone = list[AdapterSpec]()
        for version in {*named_anew(before, rollout), *self._passed(before, rollout)}:
            if rollout.is_withdrawn(version):
                if (spec := self.asked.pop(version, None)) is not None:
                    self.withdrawn[version] = spec
                    gone.append(spec)
            elif (spec := self.withdrawn.pop(version, None)) is not None:
                self.asked[version] = spec
        return gone

    def _passed(self, before: Rollout, after: Rollout) -> list[int]:
        """By the floor, as it rose."""
        start, stop = (bisect_right(self._ascending, each.floor or 0) for each in (before, after))
        return self._ascending[start:stop]

    def held(self, version: int) -> AdapterSpec | None:
        return self.asked.get(version) or self.withdrawn.get(version)

    def all(self) -> list[AdapterSpec]:
        return [*self.asked.values(), *self.withdrawn.values(), *(aside.spec for aside in self.refused.values())]

    def empty(self) -> bool:
        return not (self._ascending or self.refused)

    def find(self, version: int | None) -> AdapterSpec:
        if version in self.refused:
            raise self.refused[version].why
        if self.refused and not self._ascending:
            raise self.refused[max(self.refused)].why
        if version is None:
            return self.asked[self._answers()]
        if version in self.asked:
            return self.asked[version]
        if self.rollout.is_withdrawn(version):
            raise WithdrawnVersion(f"{AdapterKey(self.name, version)} is withdrawn. {self._instead()}")
        raise UnknownVersion(f"adapter {self.name} has no version {version} here. {self._instead()}")

    def standing(self) -> int | None:
        """The one that answers for the bare name."""
        return answering(self.rollout, self.asked) if self.ruled else max(self.asked, default=None)

    def _answers(self) -> int:
        if (version := self.standing()) is not None:
            return version
        if (damaged := answering(self.rollout, self.refused)) is not None:
            raise self.refused[damaged].why
        raise NotPromoted(self._instead())

    def _instead(self) -> str:
        """Who answers, and how to ask for another."""
        standing, known = self.standing(), nlargest(TOLD + 1, self.asked)
        who = f"No version is promoted to answer for {self.name}"
        now = who if standing is None else f"Version {standing} answers for it"
        if not known:
            return f"{now}; none is left."
        return f"{now}; ask for one by its number, as in {self.name}@{known[0]}: {_listed(known)}."


def _listed(newest: Collection[int]) -> str:
    told = ", ".join(map(str, sorted(newest)[-TOLD:]))
    return f"{told} and older ones" if len(newest) > TOLD else told
