"""What all parts stand on: one base model in float32 on one thread, adapters on disk, prompts that never repeat."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from random import Random
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import torch

from bench.serve.adapters import save
from gpu_workers.bases import load as base_model
from gpu_workers.bases.device import Device
from rillfold.settings import from_env

ONE_THREAD = Device("cpu", "float32", 1)
RANK = 16


class Loaded(NamedTuple):
    model: Any
    tokenizer: Any
    sha256: str


class Scene:
    """Of one run of the bench. `turns` for us and the fast peers, `slow` for the slow ones."""

    def __init__(self, root: Path, turns: int, slow: int, requests: int) -> None:
        torch.set_num_threads(1)
        self.root, self.turns, self.slow, self.requests = root, turns, min(slow, turns), requests
        settings = from_env()
        self.base, self.cache = settings.base_model, settings.cache_dir

    def load(self) -> Loaded:
        """A model of its own: whoever wraps or merges adapters touches nobody else's."""
        model, tokenizer, identity = base_model.load(self.base, self.cache, ONE_THREAD)
        model.generation_config.eos_token_id = None  # fixed lengths: nobody stops early
        return Loaded(model, tokenizer, identity.sha256)

    @cached_property
    def plain(self) -> Loaded:
        """The model that nobody alters."""
        return self.load()

    @property
    def vocabulary(self) -> int:
        return int(self.plain.model.config.vocab_size)

    def adapters(self, count: int, rank: int = RANK, trigger: Sequence[int] = ()) -> list[Path]:
        """Folders of distinct adapters on all seven modules, as PEFT writes them; activated ones where triggered."""
        kind = "activated" if trigger else "lora"
        folders = [self.root / f"{kind}-{rank}" / f"a{i}" for i in range(count)]
        for seed, folder in enumerate(folders):
            if not folder.is_dir():
                save(folder, self.plain.model, rank, seed, trigger)
        return folders

    def prompts(self, rows: int, length: int, *seed: object) -> list[list[int]]:
        """The same for the same seed, which has the turn in it: no prompt comes twice, so none is remembered."""
        dice = Random(repr(seed))
        return [[dice.randrange(self.vocabulary) for _ in range(length)] for _ in range(rows)]


@contextmanager
def scene(turns: int, slow: int, requests: int) -> Iterator[Scene]:
    with TemporaryDirectory(prefix="bench-serve-") as root:
        yield Scene(Path(root), turns, slow, requests)


def trigger(tokenizer: Any) -> list[int]:
    """What opens an answer in this base's template: activated adapters begin there."""
    opened, bare = (
        tokenizer.apply_chat_template(
            [{"role": "user", "content": "x"}], add_generation_prompt=adds, tokenize=True, return_dict=False
        )
        for adds in (True, False)
    )
    return list(opened[len(bare) :])
