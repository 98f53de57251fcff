"""What a run that ended well has made, and whether it answers: the gate may have refused it."""

from typing import NamedTuple

from gpu_workers.serve.port import AdapterKey
from processors.training.admit import same_adapter
from projections.lora_adapters import LORA_ADAPTERS, Adapter
from projections.training_runs import Run
from schemas.topics import TopicNames
from schemas.training import TrainingRequested
from streams.fold.view import View
from streams.log.port import EventLog


class TrainedVersion(NamedTuple):
    """A run, and the version that its bytes are."""

    run: Run
    adapter: Adapter | None

    def facts(self) -> dict[str, object]:
        """For machines."""
        made = self.adapter
        return {
            "adapter": self.run.adapter,
            "adapter_version": made.version if made else None,
            "promoted": made.promoted if made else None,
            "verdict": made.verdict if made else None,
            "sha256": self.run.sha256,
            "seconds": self.run.seconds,
        }

    def told(self) -> dict[str, object]:
        """For people."""
        if self.adapter is None:
            return {"adapter": self.run.adapter, "sha256": self.run.sha256, "seconds": self.run.seconds}
        said = "promoted" if self.adapter.promoted else "not promoted"
        verdict = f"{said}: {self.adapter.verdict}" if self.adapter.verdict else said
        return {"adapter": self._key, "gate": verdict, "sha256": self.run.sha256, "seconds": self.run.seconds}

    @property
    def remedy(self) -> str:
        """Where it does not answer for its role."""
        if self.adapter is None or self.adapter.promoted:
            return ""
        company, _, role = self.adapter.adapter.partition("/")
        asked = f"--company {company}" + ("" if role == "default" else f" --role {role}")
        return (
            f"It answers by its number alone. Why: `rillfold lineage {self._key}`. Try it: `rillfold chat {asked} "
            f"--version {self.adapter.version}`. Let it answer: `rillfold adapters promote {self._key} --reason ...`."
        )

    @property
    def _key(self) -> str:
        assert self.adapter is not None
        return str(AdapterKey(self.adapter.adapter, self.adapter.version))


async def trained(log: EventLog, names: TopicNames, request: TrainingRequested, run: Run) -> TrainedVersion:
    """Bytes that another run had made already are that run's version."""
    adapters = await View(log, names, LORA_ADAPTERS).catch_up()
    return TrainedVersion(run, same_adapter(adapters, request, run.sha256 or ""))
