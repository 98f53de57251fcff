"""Adapters in memory are kept by content: the pinned stay, shares hold, no name answers for another content."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import NamedTuple

from hypothesis import given
from hypothesis import strategies as st

from gpu_workers.serve.catalogue import Residency
from gpu_workers.serve.port import AdapterKey, AdapterSpec
from schemas.adapters import company_of

CAPACITY, SHARE = 3, 2


class Weights(NamedTuple):
    content: object
    bytes: int = 1


def spec(name: str, version: int = 1, sha256: str | None = None, base: str | None = None) -> AdapterSpec:
    return AdapterSpec(key=AdapterKey(name, version), folder=Path("/x"), sha256=sha256, base_sha256=base)


def held(residency: Residency[Weights], wanted: AdapterSpec) -> Weights:
    """As the engine does: pinned, read where it is not there, let go."""
    assert residency.pin(wanted)
    if (weights := residency.get(wanted)) is None:
        weights = Weights(wanted.content)
        residency.put(wanted, weights)
    residency.unpin(wanted)
    return weights


def test_names_and_versions_of_one_content_share_its_memory() -> None:
    residency: Residency[Weights] = Residency(CAPACITY, SHARE)
    names = [spec("acme/a", 1, "s"), spec("acme/a", 2, "s"), spec("acme/b", 7, "s")]
    assert len({id(held(residency, name)) for name in names}) == 1
    assert len(residency) == 1 and [each.key for each, _, _ in residency] == [name.key for name in names]
    assert held(residency, spec("acme/a", 1, "other")).content != held(residency, names[0]).content


def test_one_content_on_another_base_is_read_for_itself() -> None:
    residency: Residency[Weights] = Residency(CAPACITY, SHARE)
    assert held(residency, spec("a", 1, "s", "one base")) != held(residency, spec("a", 1, "s", "another"))


def test_a_name_is_withdrawn_and_the_other_keeps_the_memory() -> None:
    residency: Residency[Weights] = Residency(CAPACITY, SHARE)
    one, other = spec("acme/a", 1, "s"), spec("acme/b", 1, "s")
    kept = held(residency, one)
    held(residency, other)
    residency.drop(one)
    assert [each for each, _, _ in residency] == [other] and residency.get(other) is kept
    residency.drop(other)
    assert len(residency) == 0


def test_a_folder_without_a_hash_is_itself_at_each_reading() -> None:
    folder = spec("acme/a")
    first, second = folder.anew(), folder.anew()
    assert len({folder.content, first.content, second.content, spec("acme/b").content}) == 4
    assert spec("acme/a", sha256="s").anew() == spec("acme/a", sha256="s")


def test_capacity_counts_contents_and_a_share_its_company() -> None:
    residency: Residency[Weights] = Residency(CAPACITY, SHARE)
    assert all(residency.pin(spec(f"acme/{n}", 1, "s")) for n in range(9)), "one content, however many names"
    assert residency.pin(spec("acme/t", 1, "t")) and not residency.pin(spec("acme/u", 1, "u"))
    assert residency.pin(spec("globex/s", 1, "s")) and residency.pinned(spec("globex/s")) == 1
    assert residency.pin(spec("globex/u", 1, "u")) and not residency.pin(spec("initech/v", 1, "v")), "it is full"
    assert residency.pin(spec("initech/s", 1, "s")), "what is there needs no room"


NAMES = st.builds(
    spec, st.sampled_from(["acme/a", "acme/b", "globex/a", "plain"]), st.integers(1, 2), st.sampled_from("stuvw")
)
MOVES = st.lists(st.tuples(st.sampled_from(["pin", "unpin", "read", "drop"]), NAMES), max_size=60)


@given(MOVES)
def test_whatever_comes_and_goes_the_pinned_stay_and_the_bounds_hold(moves: list[tuple[str, AdapterSpec]]) -> None:
    residency: Residency[Weights] = Residency(CAPACITY, SHARE)
    pins: Counter[AdapterSpec] = Counter()
    there: set[object] = set()
    for what, name in moves:
        if what == "pin":
            pins[name] += residency.pin(name)
        elif what == "unpin" and pins[name]:
            pins[name] -= 1
            residency.unpin(name)
        elif what == "read" and pins[name] and residency.get(name) is None:
            residency.put(name, Weights(name.content))
            there.add(name.content)
        elif what == "drop":
            residency.drop(name)
        pins = +pins
        contents = {pinned.content for pinned in pins}
        assert len(contents | {each.content for each, _, _ in residency}) <= CAPACITY
        assert len(residency) <= CAPACITY
        for company in ("acme", "globex", "plain"):
            own = {pinned.content for pinned in pins if company_of(pinned.key.name) == company}
            assert residency.pinned(spec(f"{company}/x")) == len(own) <= SHARE
        for pinned in pins:
            weights = residency.get(pinned)
            assert weights is None or weights.content == pinned.content
            assert weights is not None or pinned.content not in there
        there = {content for content in there if content in contents}
