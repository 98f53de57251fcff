"""The logs that a loop runs on: one of this process, with a training worker of its own, or Kafka with a stack's."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path

from gpu_workers.adapters.store import FolderStore
from gpu_workers.train.parent import Train
from gpu_workers.train.place import Workplace
from gpu_workers.train.worker import Trainer
from processors.training.admit import RunBounds
from rillfold.auto_lora.config import BadConfig, TrainingConfig
from rillfold.auto_lora.history import History, Say, unsaid
from rillfold.auto_lora.room import room
from rillfold.auto_lora.tracked import noted
from rillfold.event_log import event_log, now
from rillfold.settings import Settings, from_env
from rillfold.wiring import artifact_store
from schemas.topics import TOPICS, TopicNames
from streams.history import replay
from streams.log.memory import MemoryLog
from streams.log.port import TopicSpec

NO_BOUNDS = RunBounds(texts=1 << 62, seconds=1e9, rows_bytes=1 << 62)
"""Nobody else waits for this process."""


def log_for(
    config: TrainingConfig, out: Path, train: Train, say: Say, *, kafka: bool
) -> AbstractAsyncContextManager[History]:
    """`train`: by which this process trains, where no other does."""
    return in_kafka(config, from_env(), say) if kafka else in_memory(config, from_env(), out, train, say)


@asynccontextmanager
async def in_memory(
    config: TrainingConfig, settings: Settings, out: Path, train: Train, say: Say = unsaid
) -> AsyncIterator[History]:
    """Nothing needs to run; it ends with the process."""
    log, names = MemoryLog(), TopicNames()
    await log.create([TopicSpec(names.wire(topic.name), 1) for topic in TOPICS])
    with room(out, ".work") as work:
        place = Workplace(
            worker="auto-lora",
            scratch=work / "training",
            cache=settings.cache_dir,
            threads=config.cores(),
            clock=now,
            bases={config.base_name(settings): config.base(settings)},
            bounds=NO_BOUNDS,
        )
        store = FolderStore(work / "adapters")
        worker = asyncio.create_task(Trainer(log, names, store, place, train).run(lambda: None))
        try:
            async with noted(log, names, settings, say):
                yield History(log, names, config.company, store, worker=worker)
        finally:
            worker.cancel()
            await asyncio.wait([worker])


@asynccontextmanager
async def in_kafka(config: TrainingConfig, settings: Settings, say: Say) -> AsyncIterator[History]:
    """The events stay: they can be replayed, narrowed to and left out, and the adapters be served and trained again."""
    if (name := config.base_name(settings)) not in settings.bases():
        raise BadConfig(
            f"TrainingConfig.model_name {name!r:.200} is not in RILLFOLD_BASE_MODELS, which training workers go by: "
            "list it there, for them too, or train without Kafka."
        )
    async with event_log(settings) as log:
        names = settings.topic_names()
        begin = await replay.everything_up_to_now(log, names)
        yield History(log, names, config.company, artifact_store(settings), begin=begin, say=say)
