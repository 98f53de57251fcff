"""What answers for a role now: a new adapter is measured against it."""

import asyncio
import logging
from collections.abc import Callable, Mapping
from pathlib import Path

from gpu_workers.adapters.store import FolderStore, verify
from gpu_workers.errors import ArtifactMissing, ArtifactRefused
from processors.training.admit import adapter_name
from projections.lora_adapters import Adapter
from projections.rollouts import ROLLOUTS
from schemas.topics import TopicNames
from schemas.training import TrainingRequested
from streams.fold.view import View
from streams.log.port import EventLog

log = logging.getLogger(__name__)


class Served:
    def __init__(self, event_log: EventLog, names: TopicNames, store: FolderStore, beat: Callable[[], None]) -> None:
        self._rollouts, self._store = View(event_log, names, ROLLOUTS, beat), store

    async def now(
        self, request: TrainingRequested, adapters: Mapping[str, Adapter]
    ) -> tuple[Path, int] | tuple[None, None]:
        """Its folder and version. None: the base model answers, or an adapter of another one, which cannot be measured
        on this; or this store does not have it, whole and as this company's."""
        name = adapter_name(request)
        rollout = (await self._rollouts.catch_up()).get(name)
        row = adapters.get(f"{name}/{rollout.stable}") if rollout else None
        if row is None or row.base_model != request.base_model:
            return None, None
        try:
            folder = self._store.place(row.sha256)
            await asyncio.to_thread(verify, folder, row.sha256, request.company)
            return folder, row.version
        except (ArtifactMissing, ArtifactRefused) as error:
            log.warning("run %s of %s is measured against the base model: %s", request.id, request.company, error)
            return None, None
