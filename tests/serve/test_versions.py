"""Which adapters are known: exactly what was decided, at a cost that does not grow with what a company has."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gpu_workers.refused import UnknownAdapter, UnknownVersion, WithdrawnVersion
from gpu_workers.serve.catalogue import OWN, Catalogue
from gpu_workers.serve.port import AdapterKey, AdapterSpec
from projections import rollouts
from projections.rollouts import ROLLOUTS, Rollout
from schemas.adapters import AdapterReady, RolloutDecided

NAME = "acme/support"
FIELDS: dict[str, Any] = {"company": "acme", "time": 1, "correlation": "c", "adapter": NAME}


def decided(version: int, percent: int, n: int) -> RolloutDecided:
    return RolloutDecided(id=f"d-{n}", **FIELDS, adapter_version=version, percent=percent, reason="as the test has it")


def said_ready(n: str, version: int, promoted: bool) -> AdapterReady:
    return AdapterReady(
        id=n, **FIELDS, adapter_version=version, run="r", sha256="a" * 64, uri="x", method="lora", rank=8, alpha=16,
        base_model="base", base_sha256="b" * 64, manifest="c" * 64, ranges=(), seed=0, identity="{}", promoted=promoted,
    )  # fmt: skip


@settings(max_examples=80, deadline=None)
@given(st.lists(st.tuples(st.integers(1, 12), st.sampled_from((0, 50, 100, None, "ready"))), max_size=40))
def test_after_any_decisions_exactly_those_that_are_not_withdrawn_may_be_asked(told: list[tuple[int, Any]]) -> None:
    """What is looked at again at an event is what it can have changed, and no more: here all of it is looked at."""
    made, rollout, there = Catalogue(), ROLLOUTS.initial(NAME), dict[int, AdapterSpec]()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(rollouts, "NAMED", 2)
        for n, (version, what) in enumerate(told):
            if what == "ready" or what is None:
                event: Any = said_ready(f"{n}", version, promoted=what is None)
                there[version] = AdapterSpec(key=AdapterKey(NAME, version))
                made.add(there[version])
            else:
                event = decided(version, what, n)
            before = {v for v in there if not rollout.is_withdrawn(v)}
            rollout = ROLLOUTS.fold(rollout, event)
            gone = {spec.key.version for spec in made.obey(rollout)}
            asked = {v for v in there if not rollout.is_withdrawn(v)}
            assert sorted(made.keys()) == [AdapterKey(NAME, v) for v in sorted(asked)] and len(made) == len(asked)
            assert gone >= {v for v in before - asked if v in there}
            for v in there:
                if v in asked:
                    assert made.find(NAME, v) is there[v]
                else:
                    with pytest.raises(WithdrawnVersion):
                        made.find(NAME, v)


def test_an_event_costs_what_it_changes_and_not_what_a_company_has(monkeypatch: pytest.MonkeyPatch) -> None:
    made, rollout, judged = Catalogue(), ROLLOUTS.initial(NAME), 0
    plain = Rollout.is_withdrawn

    def counted(self: Rollout, version: int) -> bool:
        nonlocal judged
        judged += 1
        return plain(self, version)

    monkeypatch.setattr(Rollout, "is_withdrawn", counted)
    ready_ones = [said_ready(f"r{v}", v, promoted=False) for v in range(1, 2_500)]
    events = [*ready_ones, *(decided(2_499 - v, 0, v) for v in range(1_500))]
    for event in events:
        if isinstance(event, AdapterReady):
            made.add(AdapterSpec(key=AdapterKey(NAME, event.adapter_version)))
        rollout = ROLLOUTS.fold(rollout, event)
        made.obey(rollout)
    assert len(made) == len(list(made.keys())) == sum(1 for v in range(1, 2_500) if not plain(rollout, v))
    assert judged < 4 * len(events)


def test_of_a_company_that_says_very_many_the_oldest_are_forgotten_and_of_no_other() -> None:
    made = Catalogue()
    other = AdapterSpec(key=AdapterKey("globex/support", 1))
    made.add(other)
    specs = [AdapterSpec(key=AdapterKey(f"acme/r{n % 7}", n)) for n in range(1, OWN + 101)]
    gone = [spec for each in specs for spec in made.add(each)]
    assert gone == specs[:100] and len(made) == OWN + 1
    assert made.find("globex/support", None) is other
    with pytest.raises(UnknownVersion):
        made.find("acme/r1", 1)
    for n in range(7):
        made.remove(f"acme/r{n}", None)
    assert list(made.keys()) == [other.key] and list(made.answering("acme")) == []
    with pytest.raises(UnknownAdapter, match="there are: none"):
        made.find("acme/r1", None)


def test_of_names_without_a_version_nothing_is_kept() -> None:
    """Whoever may decide something of them could fill the memory with them."""
    made = Catalogue()
    for n in range(100):
        made.obey(Rollout(company="acme", adapter=f"acme/{n}", newest=1, withdrawn=(1,)))
    made.add(AdapterSpec(key=AdapterKey(NAME, 1)))
    made.obey(Rollout(company="acme", adapter=NAME, newest=1, stable=1, promoted=(1,)))
    assert made.find(NAME, None).key.version == 1
    made.remove(NAME, 1)
    assert made._names == {} and made._said == {"acme": {}}
