"""What answers for a role now: a new adapter is measured against it."""

import logging
from collections.abc import Callable, Mapping
from pathlib import Path

from gpu_workers.adapters.origin import fetched
from gpu_workers.adapters.port import AdapterStore
from gpu_workers.errors import ArtifactMissing, ArtifactRefused
from gpu_workers.train.world import stored
from processors.training.admit import adapter_name
from projections.lora_adapters import Adapter
from projections.rollouts import ROLLOUTS
from schemas.topics import TopicNames
from schemas.training import TrainingRequested
from streams.fold.view import View
from streams.log.port import EventLog

log = logging.getLogger(__name__)


class Served:
    def __init__(self, event_log: EventLog, names: TopicNames, store: AdapterStore, beat: Callable[[], None]) -> None:
        self._rollouts, self._store, self._beat = View(event_log, names, ROLLOUTS, beat), store, beat

    async def now(self, request: TrainingRequested, adapters: Mapping[str, Adapter]) -> tuple[Path | None, int | None]:
        """Its folder and version. No version: nothing answers, and the base model is what there is. No folder: this
        store does not have it, whole and as this company's. Whether it stands on the base of a run, the child sees by
        the hashes."""
        if (version := await self.version(request)) is None:
            return None, None
        try:
            return await self._place(request, version, adapters), version
        except (ArtifactMissing, ArtifactRefused) as error:
            name = adapter_name(request)
            log.warning("run %s of %s cannot be held against %s: %s", request.id, request.company, name, error)
            return None, version

    async def version(self, request: TrainingRequested) -> int | None:
        rollout = (await self._rollouts.catch_up()).get(adapter_name(request))
        return rollout.stable if rollout else None

    async def _place(self, request: TrainingRequested, version: int, adapters: Mapping[str, Adapter]) -> Path:
        if (row := adapters.get(f"{adapter_name(request)}/{version}")) is None:
            raise ArtifactMissing(f"version {version}: not among the adapters that this worker knows.")
        folder, _facts = await stored(self._beat, 0, fetched, self._store, row.sha256, request.company)
        return folder
