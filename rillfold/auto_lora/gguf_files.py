"""Each iteration's adapter as a file of llama.cpp, beside its two files of PEFT."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from rillfold.auto_lora.config import TrainingConfig
from rillfold.settings import from_env

if TYPE_CHECKING:
    from gpu_workers.export.adapter import ReadyBase


class GgufFiles:
    """Of adapters on one base, which is looked at once. The same bytes as `rillfold adapters export FOLDER` writes."""

    def __init__(self, config: TrainingConfig) -> None:
        self._config = config
        self._base: ReadyBase | None = None

    def __call__(self, folder: Path) -> None:
        """Raises what would make it another adapter there."""
        from gpu_workers.bases.before_torch import settle

        settle()
        from gpu_workers.export.adapter import GGUF, ReadyBase, export_gguf

        if self._base is None:
            settings = from_env()
            name = settings.base_name(self._config.model_name or None)
            self._base = ReadyBase.of(name, self._config.base(settings), settings.cache_dir)
        export_gguf(folder, self._base, folder / GGUF)
