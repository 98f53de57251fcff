"""Adapters and their base as files of llama.cpp."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from rillfold.auto_lora.config import TrainingConfig
from rillfold.auto_lora.history import Say
from rillfold.settings import from_env
from schemas.errors import RillfoldError

if TYPE_CHECKING:
    from gpu_workers.export.adapter import ReadyBase


Export = Callable[[Path], None]
"""Given a folder with an adapter, writes it there in another form."""


class GgufFiles:
    """Of adapters on one base, which is looked at once. The same bytes as `rillfold adapters export FOLDER` writes."""

    def __init__(self, config: TrainingConfig) -> None:
        settings = from_env()
        self._name, self._where, self._cache = config.base_name(settings), config.base(settings), settings.cache_dir
        self._base: ReadyBase | None = None

    def __call__(self, folder: Path) -> None:
        """Raises what would make it another adapter there."""
        _settle()
        from gpu_workers.export.adapter import GGUF, ReadyBase, export_gguf

        self._base = self._base or ReadyBase.of(self._name, self._where, self._cache)
        export_gguf(folder, self._base, folder / GGUF)

    def base(self, folder: Path | str) -> Path:
        """Writes the base there; llama.cpp loads adapters beside it."""
        _settle()
        from gpu_workers.export.base_model import export_base

        file = Path(folder) / f"{self._name}-F32.gguf"
        export_base(self._where, self._cache, file, name=self._name)
        return file


async def exported(export: Export, folder: Path, say: Say) -> None:
    """A form that cannot be had is said, and costs nothing else."""
    try:
        await asyncio.to_thread(export, folder)
    except Exception as error:  # a form of one's own may raise anything, and what was trained is worth more
        told = error if isinstance(error, RillfoldError | OSError) else f"{type(error).__name__}: {error}"
        say(f"{folder.name} is kept without a GGUF file: {told}")


def _settle() -> None:
    from gpu_workers.bases.before_torch import settle

    settle()
