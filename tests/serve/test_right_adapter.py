"""Hundreds of random requests over adapters of all kinds that come and go: every answer is its own adapter's."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from bench.serve.right import Traffic, traffic
from gpu_workers.adapters.weights import LoraWeights, read_adapter


async def served(root: Path, requests: int = 240) -> Traffic:
    return await traffic(root, requests, adapters=24, cache=8)


async def test_every_answer_is_its_own_adapters(tmp_path: Path) -> None:
    made = await served(tmp_path)
    assert made.wrong == []
    assert not made.left_out, "a kind that the engine refuses"
    assert made.counted["held against PEFT"] > 150
    assert made.counted["ties"] < 5
    for what in ("evicted", "swapped", "withdrawn", "published again", "cancelled", "refused"):
        assert made.counted[what] > 1, what


async def test_one_wrong_adapter_in_many_would_be_seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Fault: now and then a neighbour's matrices are read in an adapter's place."""
    folders: list[Path] = []

    def now_and_then_another(folder: Path, *how: Any) -> LoraWeights:
        folders.append(folder)
        return read_adapter(folders[-2] if len(folders) % 20 == 0 else folder, *how)

    monkeypatch.setattr("gpu_workers.serve.engines.start.read_adapter", now_and_then_another)
    assert (await served(tmp_path, 120)).wrong
