"""What a row says, or what its adapter does to it, ends with that row: nobody else's token changes."""

from __future__ import annotations

import gc
import math
import weakref
from collections.abc import Iterable
from typing import Any

import pytest
import torch

from gpu_workers.adapters.weights import LoraWeights
from gpu_workers.refused import EngineStopped, TooLong, UnusableAdapter
from gpu_workers.serve.engine.bounds import FiniteBounds
from gpu_workers.serve.engine.decoder import Computed, Decoder, Tokens
from gpu_workers.serve.engine.engine import Engine, Fell, LoraRow, Said
from gpu_workers.serve.engine.kv import KVCache
from gpu_workers.serve.engine.lanes import Lanes, LaneStack, Site
from gpu_workers.serve.engine.trial import Trial
from gpu_workers.serve.schedule.rows import Limits
from tests.support.models import VOCABULARY, tiny

Told = dict[int, list[int | str]]


@pytest.fixture(scope="module")
def model() -> Any:
    return tiny("qwen3")


def run(engine: Engine, rows: Iterable[LoraRow] = ()) -> Told:
    """What each row said; where it fell, the reason stands last."""
    told: Told = {}
    for row in rows:
        engine.submit(row)
    while engine.busy():
        for each in engine.step():
            told.setdefault(each.ticket, []).extend(each.tokens if isinstance(each, Said) else [each.why.reason])
    return told


def monster(decoder: Decoder, size: float, only: str = "") -> LoraWeights:
    """Every number is finite; what it does to a hidden state is not."""
    shapes = {module: shape for module, shape in decoder.shapes().items() if only in module}
    return LoraWeights({m: (torch.full((4, i), size), torch.full((o, 4), size)) for m, (o, i) in shapes.items()}, 4)


def asked(ticket: int, weights: LoraWeights | None = None, length: int = 9, limit: int = 12, **changes: Any) -> LoraRow:
    return LoraRow(ticket, [(ticket * 31 + i * 7) % VOCABULARY for i in range(length)], weights, limit, **changes)


MONSTERS = [(1e30, ""), (1e18, ""), (3e37, "v_proj"), (1e19, "k_proj"), (1e17, "layers.1.mlp.down_proj")]


@pytest.mark.parametrize(("size", "only"), MONSTERS)
def test_rows_beside_a_row_without_finite_numbers_say_what_they_say_alone(model: Any, size: float, only: str) -> None:
    decoder = Decoder(model)
    weights = monster(decoder, size, only)
    good = [asked(i, length=4 + 5 * i) for i in range(4)]
    alone = [run(Engine(decoder, frozenset(), Limits()), [asked(i, length=4 + 5 * i)])[i] for i in range(4)]
    told = run(
        Engine(decoder, frozenset(), Limits()),
        [asked(9, weights, length=30), *good[:2], asked(10, weights, length=2), *good[2:]],
    )
    assert [told[i] for i in range(4)] == alone
    if not only:
        assert told[9] == told[10] == ["not_finite"]


@pytest.mark.parametrize(("size", "only"), MONSTERS)
def test_the_next_row_in_a_monsters_slot_says_what_it_says_alone(model: Any, size: float, only: str) -> None:
    decoder = Decoder(model)
    weights = monster(decoder, size, only)
    engine = Engine(decoder, frozenset(), Limits(rows=3))
    told: Told = {}
    rows = [asked(0, limit=60), asked(20, weights, length=40, limit=3), asked(21, weights, length=33, limit=4)]
    rows += [asked(i, length=3 + i, limit=10 + i) for i in range(1, 6)]
    told = run(engine, rows)
    for row in rows:
        if row.adapter is None:
            assert told[row.ticket] == run(Engine(decoder, frozenset(), Limits()), [_again(row)])[row.ticket]


def _again(row: LoraRow) -> LoraRow:
    return LoraRow(row.ticket, row.prompt, row.adapter, row.limit)


def test_a_page_holds_nothing_of_a_former_row(model: Any) -> None:
    """After any coming, going and giving way, what lies beyond a row's own length is zero."""
    decoder = Decoder(model)
    engine = Engine(decoder, frozenset(), Limits(rows=4, pages=9))
    for layer in engine._cache.store:
        layer[:, :, 1:] = math.nan
    for i in range(12):
        engine.submit(asked(i, length=5 + (i * 11) % 40, limit=1 + (i * 5) % 9))
    while engine.busy():
        engine.step()
        for row in engine._schedule.running:
            for layer in engine._cache.store:
                cells = layer.view(2, decoder.kv_heads, -1, decoder.head_dim)
                last = row.pages[-1] * engine._cache.size if row.pages else 0
                used = row.fed - engine._cache.size * (len(row.pages) - 1)
                assert not row.pages or not cells[:, :, last + used : last + engine._cache.size].any()


@pytest.mark.parametrize("temperature", [1e-40, 1e-38, 1e-5, 5e-324])
def test_a_temperature_near_nothing_is_nothing(model: Any, temperature: float) -> None:
    engine = Engine(Decoder(model), frozenset(), Limits())
    cold, greedy, warm = asked(0, temperature=temperature), asked(1), asked(2, temperature=1.0, seed=3)
    told = run(engine, [cold, greedy, warm])
    engine = Engine(Decoder(model), frozenset(), Limits())
    assert told == run(engine, [asked(0), asked(1), asked(2, temperature=1.0, seed=3)])


@pytest.mark.parametrize("wrong", [{"temperature": 1.0, "top_p": None}, {"temperature": 1.0, "seed": None}])
def test_what_cannot_be_drawn_ends_its_own_row(model: Any, wrong: dict[str, Any]) -> None:
    told = run(Engine(Decoder(model), frozenset(), Limits()), [asked(0), asked(1, **wrong), asked(2)])
    assert told[1] == ["row_failed"]
    assert [told[0], told[2]] == [run(Engine(Decoder(model), frozenset(), Limits()), [asked(i)])[i] for i in (0, 2)]


class Faulty(Decoder):
    """Fault: a step with this token in it fails, as a kernel may; 'all' fails always."""

    def __init__(self, model: Any, poison: int | str, error: type[Exception] = RuntimeError, word: str = "") -> None:
        super().__init__(model)
        self._poison, self._error, self._word = poison, error, word

    def forward(self, tokens: Tokens, cache: KVCache) -> Computed:
        if self._poison == "all" or self._poison in tokens.ids.tolist():
            raise self._error(self._word or "a fault of the test")
        return super().forward(tokens, cache)


@pytest.mark.parametrize("error", [RuntimeError, MemoryError, RecursionError, ValueError])
def test_a_step_that_fails_fails_only_for_its_culprit(model: Any, error: type[Exception]) -> None:
    poison = 200
    rows = [asked(i, length=4) for i in range(3)]
    assert all(poison not in row.prompt for row in rows)
    culprit = LoraRow(7, [3, poison], None, 5)
    told = run(Engine(Faulty(model, poison, error), frozenset(), Limits()), [rows[0], culprit, *rows[1:]])
    assert told[7] == ["row_failed"]
    for i in range(3):
        good = run(Engine(Decoder(model), frozenset(), Limits()), [asked(i, length=4)])[i]
        until = good.index(poison) if poison in good[:-1] else len(good)
        assert told[i][: until + 1] == good[: until + 1]


@pytest.mark.parametrize("times", [1, 3, 10**6])
def test_memory_that_is_short_for_an_adapter_fails_no_other_row(
    model: Any, times: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And when there is memory again, the adapter is served as if nothing had been."""
    decoder = Decoder(model)
    engine, made, short = Engine(decoder, frozenset(), Limits()), LaneStack.__init__, [times]

    def scarce(stack: LaneStack, lanes: int, *args: Any) -> None:
        """Three sites have theirs, then the device is full: so many times."""
        if short[0] and len(decoder.sites[2].stacks):
            short[0] -= 1
            raise torch.OutOfMemoryError("CUDA out of memory (a fault of the test)")
        made(stack, lanes, *args)

    mild = monster(decoder, 0.02)
    alone = {i: run(Engine(decoder, frozenset(), Limits()), [asked(i)])[i] for i in range(3)}
    alone[9] = run(Engine(decoder, frozenset(), Limits()), [asked(9, mild)])[9]
    monkeypatch.setattr(LaneStack, "__init__", scarce)
    told = run(engine, [*(asked(i, owner="acme") for i in range(3)), asked(9, mild, owner="globex")])
    assert {i: told[i] for i in range(3)} == {i: alone[i] for i in range(3)}
    assert told[9] == (alone[9] if times <= 3 else ["row_failed"])
    short[0] = 0
    told = run(engine, [asked(0), asked(9, mild)])
    assert told == {0: alone[0], 9: alone[9]}


def test_an_engine_that_computes_nothing_stops_and_blames_nobody(model: Any) -> None:
    engine = Engine(Faulty(model, "all"), frozenset(), Limits())
    for i in range(3):
        engine.submit(asked(i))
    with pytest.raises(EngineStopped, match=r"nothing any more.*base model alone on \w+: RuntimeError: a fault of the"):
        engine.step()


def test_a_broken_device_stops_the_engine_at_once(model: Any) -> None:
    engine = Engine(Faulty(model, 200, word="CUDA error: an illegal memory access"), frozenset(), Limits())
    engine.submit(LoraRow(0, [200], None, 1))
    with pytest.raises(EngineStopped, match="illegal memory"):
        engine.step()


def test_steps_that_fail_for_everybody_stop_the_engine(model: Any) -> None:
    """The probe is small enough to succeed: a device whose memory others hold."""
    engine = Engine(Faulty(model, 200, MemoryError), frozenset(), Limits(rows=2))
    with pytest.raises(EngineStopped, match="companies"):
        run(engine, [LoraRow(i, [200], None, 1, owner=f"c{i % 5}") for i in range(40)])
    one = Engine(Faulty(model, 200, MemoryError), frozenset(), Limits(rows=2))
    told = run(one, [LoraRow(i, [200], None, 1, owner="acme") for i in range(40)])
    assert set(map(tuple, told.values())) == {("row_failed",)}, "one company alone ends nothing"


def test_an_adapter_is_proven_finite_in_use(model: Any) -> None:
    decoder = Decoder(model)
    prove = Trial(decoder)
    for size in (1e30, 1e18):
        with pytest.raises(UnusableAdapter, match="not finite"):
            prove(monster(decoder, size))
    prove(monster(decoder, 1e-3))


@pytest.mark.parametrize("only", ["", "q_proj", "v_proj", "layers.1.mlp", "down_proj"])
def test_what_bounds_prove_finite_is_so_when_it_is_run(model: Any, only: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """And no adapter of a training is run for it."""
    decoder = Decoder(model)
    bounds, prove = FiniteBounds(decoder), Trial(decoder)
    sizes = [10.0**power for power in range(-3, 20)]
    proven = [size for size in sizes if bounds.prove(monster(decoder, size, only))]
    assert proven == sizes[: len(proven)] and 1e-3 in proven and 1e18 not in proven
    monkeypatch.setattr(FiniteBounds, "prove", lambda *_: False)
    prove(monster(decoder, proven[-1], only))
    monkeypatch.undo()
    monkeypatch.setattr(Decoder, "forward", lambda *_: pytest.fail("it was run"))
    prove(monster(decoder, 0.1, only))


def test_lanes_keep_no_adapter_in_memory() -> None:
    lanes, seen = Lanes([Site(["m"], [(4, 4)])], torch.zeros(1)), list[weakref.ref[LoraWeights]]()
    for _ in range(20):
        weights = LoraWeights({"m": (torch.ones(2, 4), torch.ones(4, 2))}, 2)
        seen.append(weakref.ref(weights))
        lanes.seat({weights})
    del weights
    gc.collect()
    assert [each() for each in seen] == [None] * 20


def test_a_row_that_can_never_run_is_refused_by_name(model: Any) -> None:
    engine = Engine(Decoder(model), frozenset(), Limits(rows=2, pages=7))
    with pytest.raises(TooLong, match="one row may have 96"):
        engine.submit(asked(0, length=90, limit=20))
    assert not engine.step() and not engine.busy()


def test_fell_rows_leave_the_batch(model: Any) -> None:
    decoder = Decoder(model)
    engine = Engine(decoder, frozenset(), Limits())
    engine.submit(asked(0, monster(decoder, 1e30)))
    assert [type(each) for each in engine.step()] == [Fell]
    assert not engine.rows()


@pytest.mark.parametrize(("size", "only"), MONSTERS)
def test_a_short_prompt_is_not_padded_with_a_monsters_tokens(model: Any, size: float, only: str) -> None:
    """The monster's tokens are the batch's first, where padding once came from."""
    decoder = Decoder(model)
    weights, mild = monster(decoder, size, only), monster(decoder, 0.02)
    engine = Engine(decoder, frozenset(), Limits())
    run(engine, [asked(8, weights, limit=1)])  # takes the first lane
    told = run(engine, [asked(9, weights, length=30, limit=3), asked(1, mild, length=4), asked(2, mild, length=11)])
    for i, length in ((1, 4), (2, 11)):
        assert told[i] == run(Engine(decoder, frozenset(), Limits()), [asked(i, mild, length=length)])[i]
