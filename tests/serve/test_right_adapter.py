"""Hundreds of random requests over adapters of all kinds that come and go: every answer is its own adapter's."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from bench.serve import right
from bench.serve.right import Traffic, traffic
from gpu_workers.adapters.weights import LoraWeights, read_adapter


async def served(root: Path, requests: int) -> Traffic:
    return await traffic(root, requests, adapters=16, cache=6)


@pytest.fixture(autouse=True)
def much_happens(monkeypatch: pytest.MonkeyPatch) -> None:
    """In so few requests."""
    for what, chance in {"SWAP": 0.08, "WITHDRAW": 0.05, "CANCEL": 0.1}.items():
        monkeypatch.setattr(right, what, chance)


async def test_every_answer_is_its_own_adapters(tmp_path: Path) -> None:
    made = await served(tmp_path, 200)
    assert made.wrong == []
    assert not made.left_out, "a kind that the engine refuses"
    assert made.counted["held against PEFT"] > 100
    assert made.counted["ties"] < 5
    for what in ("evicted", "swapped", "withdrawn", "published again", "cancelled", "refused"):
        assert made.counted[what], what


async def test_one_wrong_adapter_in_many_would_be_seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Fault: now and then a neighbour's matrices are read in an adapter's place."""
    folders: list[Path] = []

    def now_and_then_another(folder: Path, *how: Any) -> LoraWeights:
        read = read_adapter(folders[-1] if len(folders) % 4 == 3 else folder, *how)
        folders.append(folder)  # one that can be read: what is broken by design is nobody's neighbour
        return read

    monkeypatch.setattr("gpu_workers.serve.engines.start.read_adapter", now_and_then_another)
    assert (await served(tmp_path, 160)).wrong
