"""One prompt read once: whose pages are read again, by whom, and that what is said stays what PEFT says."""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest

from gpu_workers.adapters.weights import LoraWeights, read_adapter
from gpu_workers.serve.engine.decoder import Decoder, Tokens
from gpu_workers.serve.engine.engine import Engine, LoraRow, Said
from gpu_workers.serve.schedule.rows import Limits
from tests.serve.test_adapters import ADALORA, adalora, saved
from tests.support.models import ALL, VOCABULARY, Zoo, save_adapter

TRIGGER = [5, 9]
Turn = dict[int, list[int]]


class Counting(Decoder):
    """How many tokens go through it."""

    read = 0

    def forward(self, tokens: Tokens, cache: Any) -> Any:
        self.read += len(tokens.ids)
        return super().forward(tokens, cache)


@pytest.fixture(scope="module")
def kinds(zoo: Zoo, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Zoo]:
    """The zoo, with what acts from a trigger on, and with AdaLoRA."""
    root = tmp_path_factory.mktemp("kinds")
    made = {
        f"activated-{seed}": save_adapter(
            zoo.base, root / str(seed), seed, r=8, lora_alpha=16, target_modules=ALL, alora_invocation_tokens=TRIGGER
        )
        for seed in (1, 2)
    }
    made["adalora"] = saved(adalora(zoo.base, 1, **next(iter(ADALORA.values()))), root / "adalora")
    yield Zoo(zoo.base, zoo.folders | made)


def prompt_of(length: int, seed: int, trigger: bool = True) -> list[int]:
    dice = random.Random(seed)
    words = [dice.choice([token for token in range(VOCABULARY) if token not in TRIGGER]) for _ in range(length)]
    return [*words, *TRIGGER] if trigger else words


def row(ticket: int, prompt: list[int], weights: LoraWeights | None = None, **more: Any) -> LoraRow:
    begins = len(prompt) - len(TRIGGER) if weights is not None and weights.activation else 0
    mark = weights.content if weights else None
    return LoraRow(ticket, list(prompt), weights, 8, active_from=begins, mark=mark, **more)


def run(engine: Engine, rows: Iterable[LoraRow]) -> Turn:
    said: Turn = {}
    for each in rows:
        engine.submit(each)
    while engine.busy():
        for told in engine.step():
            assert isinstance(told, Said), told
            said.setdefault(told.ticket, []).extend(told.tokens)
    return said


def test_all_kinds_in_one_batch_say_what_peft_says_and_read_the_prompt_once(kinds: Zoo) -> None:
    prompt = prompt_of(100, seed=1)
    names = [None, "activated-1", "adalora", "activated-2", "r8", None, "activated-1"]
    weights = {name: read_adapter(kinds.folders[name]) for name in names if name}
    decoder = Counting(kinds.base)
    rows = [row(i, prompt, weights.get(str(name)), owner="acme") for i, name in enumerate(names)]
    said = run(Engine(decoder, frozenset(), Limits()), rows)
    for i, name in enumerate(names):
        assert said[i] == kinds.greedy(name, prompt, 8), name
    assert [each.cached for each in rows] == [0, 96, 0, 96, 0, 96, 96], "page by page, the base's own"
    whole, tails = 3 * len(prompt), 4 * (len(prompt) - 96)
    assert decoder.read == whole + tails + 7 * 7, "each answer's last token is not read"


def test_sixteen_that_act_from_the_trigger_read_one_transcript_once(zoo: Zoo, tmp_path: Path) -> None:
    prompt = prompt_of(300, seed=2)
    config = {"r": 4, "lora_alpha": 8, "target_modules": ALL, "alora_invocation_tokens": TRIGGER}
    folders = [save_adapter(zoo.base, tmp_path / str(seed), seed, **config) for seed in range(16)]
    decoder, pages = Counting(zoo.base), 1 + 18 + 16 * 3
    weights = [read_adapter(folder) for folder in folders]
    engine = Engine(decoder, frozenset(), Limits(pages=pages))
    said = run(engine, [row(i, prompt, each, owner="acme") for i, each in enumerate(weights)])
    assert decoder.read == 302 + 15 * (302 - 288) + 16 * 7
    one = Zoo(zoo.base, {str(i): folder for i, folder in enumerate(folders)})
    assert [said[i] for i in range(16)] == [one.greedy(str(i), prompt, 8) for i in range(16)]
    assert len({tuple(each) for each in said.values()}) > 8, "else the adapters do nothing"


@pytest.mark.parametrize("public", [0, 64])
def test_another_company_reads_its_prompt_itself_unless_it_is_public(zoo: Zoo, public: int) -> None:
    prompt = prompt_of(80, seed=3)
    engine = Engine(Decoder(zoo.base), frozenset(), Limits())
    rows = [row(i, prompt, owner=owner, public=public) for i, owner in enumerate(("acme", "globex", "acme", None))]
    for each in rows:
        assert run(engine, [each])[each.ticket] == zoo.greedy(None, prompt, 8)
    assert [each.cached for each in rows] == [0, public, 80, public]


def test_another_version_or_adapter_never_reads_what_one_wrote(kinds: Zoo) -> None:
    prompt = prompt_of(80, seed=4)
    first, again, other = (read_adapter(kinds.folders[name], content=mark) for name, mark in
                           (("r8", "sha-1"), ("r8", "sha-1"), ("patterns", "sha-2")))  # fmt: skip
    engine = Engine(Decoder(kinds.base), frozenset(), Limits())
    rows = [row(i, prompt, each, owner="acme") for i, each in enumerate((first, other, again, None))]
    for each, name in zip(rows, ("r8", "patterns", "r8", None), strict=True):
        assert run(engine, [each])[each.ticket] == kinds.greedy(name, prompt, 8)
    assert [each.cached for each in rows] == [0, 0, 80, 0], "one content that was read twice is one content"


def test_what_was_said_is_read_again_in_the_next_turn(zoo: Zoo) -> None:
    engine, prompt = Engine(Decoder(zoo.base), frozenset(), Limits()), prompt_of(30, seed=5, trigger=False)
    first = row(0, prompt, owner="acme")
    first.limit = 40
    said = run(engine, [first])[0]
    second = row(1, prompt + said + [7, 8], owner="acme")
    assert run(engine, [second])[1] == zoo.greedy(None, second.prompt, 8)
    assert second.cached == 64, "30 asked and 39 of the 40 said were read; whole pages are found"


def test_pages_that_are_remembered_make_room_for_who_runs(zoo: Zoo) -> None:
    """Never more than there are, whatever was read before."""
    engine = Engine(Decoder(zoo.base), frozenset(), Limits(pages=20))
    for i in range(12):
        prompt = prompt_of(100 + 8 * i, seed=i)
        assert run(engine, [row(i, prompt, owner=f"c{i % 3}")])[i] == zoo.greedy(None, prompt, 8)
        assert engine.memory().held == 0
