"""The model that a job made: the version of its role with the bytes that the run ended with."""

from processors.tuning.names import TunedModel
from projections.lora_adapters import LORA_ADAPTERS
from projections.training_runs import Run
from rillfold.api.tuning import found
from rillfold.wiring import Services


class TunedModels:
    """For one answer: the versions of a role are looked through once."""

    def __init__(self, serving: Services) -> None:
        self._serving = serving
        self._versions: dict[str, dict[str, int]] = {}

    async def model(self, run: Run) -> TunedModel | None:
        """None: none yet, or never. A run whose bytes were there already made no version: it is the older one."""
        if run.status != "completed" or run.adapter is None or run.sha256 is None:
            return None
        if run.adapter not in self._versions:
            self._versions[run.adapter] = await self._read(run.company, run.adapter)
        version = self._versions[run.adapter].get(run.sha256)
        return TunedModel(run.base_model, run.company, run.role, version) if version else None

    async def _read(self, company: str, adapter: str) -> dict[str, int]:
        """By hash."""
        role = adapter.removeprefix(f"{company}/")
        ready = found.those_of(self._serving, LORA_ADAPTERS, company, f"{role}/")
        return {row.sha256: row.version async for row in ready if row.event}
