"""Three lanes side by side, as `make test` runs them: what stays together, what begins first, what the run has cost."""

from __future__ import annotations

import resource
from collections import Counter
from collections.abc import Iterable
from typing import Any

import pytest

TOGETHER = ("tests/story/", "tests/hostile/")
"""One lane has all of it: each brings a house full of workers, and two such houses at once are too many."""
LONGEST_FIRST = (*TOGETHER, "tests/serve/", "tests/train/", "tests/fold/", "tests/bridge/", "tests/stack/")
"""Begun first, so that no lane ends alone with one of them."""


def tests_run_here(config: pytest.Config) -> bool:
    """Not in the process that only hands them to the lanes."""
    return bool(config.getoption("dist", "no") == "no")


def rank(item: pytest.Item) -> int:
    return next((n for n, begin in enumerate(LONGEST_FIRST) if item.nodeid.startswith(begin)), len(LONGEST_FIRST))


def scheduler(config: pytest.Config, log: Any) -> Any:
    """A file stays in one lane, and so does all of `TOGETHER`. None leaves the choice to xdist."""
    if config.getoption("dist") != "loadfile":
        return None
    from xdist.scheduler import LoadFileScheduling

    class Lanes(LoadFileScheduling):  # type: ignore[misc]
        def _split_scope(self, nodeid: str) -> str:
            return TOGETHER[0] if nodeid.startswith(TOGETHER) else str(super()._split_scope(nodeid))

    return Lanes(config, log)


def processor_seconds() -> float:
    """Of this process and of every process below it that has ended."""
    used = [resource.getrusage(whose) for whose in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(each.ru_utime + each.ru_stime for each in used)


class Meter:
    """What this process and those that it has seen the end of have used since the last look."""

    def __init__(self) -> None:
        self._seen = processor_seconds()

    def since(self) -> float:
        before, self._seen = self._seen, processor_seconds()
        return self._seen - before


def costliest(reports: Iterable[Any], count: int = 10) -> list[tuple[str, float]]:
    """Files by their processor seconds. A server that many share is on the account of the file with which it ends."""
    spent: Counter[str] = Counter()
    for report in reports:
        spent[report.nodeid.partition("::")[0]] += getattr(report, "processor_seconds", 0.0)
    return spent.most_common(count)


def sayable(said: Any) -> Any:
    """The same with half characters spelled out."""
    if isinstance(said, str):
        return said.encode("utf-8", "backslashreplace").decode()
    if isinstance(said, dict):
        return {sayable(key): sayable(value) for key, value in said.items()}
    return type(said)(map(sayable, said)) if type(said) in (list, tuple) else said
