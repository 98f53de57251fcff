"""One adapter from conversations that are there: made ones, or what an agent has said."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from gpu_workers.bases.files import look
from gpu_workers.train.lines import Report
from gpu_workers.train.parent import Train, train_in_child
from processors.dataset.selection import Selection
from processors.synthetic.making import Made
from rillfold.auto_lora.config import TrainingConfig, made_by
from rillfold.auto_lora.gguf_files import GgufFiles, exported
from rillfold.auto_lora.history import Say, unsaid
from rillfold.auto_lora.iteration import NOBODY, Workroom
from rillfold.auto_lora.logs import log_for
from rillfold.auto_lora.made import event_of, loop_of
from rillfold.auto_lora.room import OutputInUse
from rillfold.event_log import now
from rillfold.settings import from_env
from schemas.company import AgentOutputIngested, ConversationIngested
from schemas.errors import Stop

Conversation = Made | ConversationIngested | AgentOutputIngested


class LoRATrainer:
    """Loss on answers alone, prompts as serving has them, nothing cut in silence: as every training here."""

    def __init__(
        self,
        config: TrainingConfig | None = None,
        out: Path | str = "lora_adapter",
        *,
        kafka: bool = False,
        say: Say = unsaid,
        train: Train = train_in_child,
    ) -> None:
        self.config, self._out, self._kafka = config or TrainingConfig(), Path(out), kafka
        self._say, self._train = say, train

    async def train(self, conversations: Iterable[Conversation]) -> tuple[Path, dict[str, Any]]:
        """The adapter's folder, and how good it is on what the dataset's rule holds out. Raises Stop with one line."""
        told = list(conversations)
        if not told:
            raise Stop("No conversation was given: give made ones, or `agent_outputs(file, company)`.")
        if others := {each.company for each in told if not isinstance(each, Made)} - {self.config.company}:
            raise Stop(f"A conversation is of {min(others)}, and TrainingConfig.company is {self.config.company}.")
        made = [each for each in told if isinstance(each, Made)]
        loop = loop_of(made, self.config.seed, shared=self._kafka) if made == told else None
        select = made_by(loop) if loop else Selection()
        self.config.train_settings(select)
        look(self.config.base(settings := from_env()))
        out = self._out.absolute()
        if out.exists():
            raise OutputInUse(f"{out} is there already: name another folder, or move that one away.")
        async with log_for(self.config, out.parent, self._train, self._say, kafka=self._kafka) as history:
            own = self.config.company, now(), loop
            events = [event_of(each, *own) if isinstance(each, Made) else each for each in told]
            await history.tell(events)
            learned = await Workroom(self.config, settings, history).learn(select, out, self._heard, self._beside)
        evaluation, adapter = learned.adapter.evaluation or NOBODY, learned.adapter
        return out, {
            "adapter": f"{adapter.adapter}@{adapter.version}",
            "before": evaluation.before,
            "after": evaluation.after,
            "held_out": evaluation.examples,
        }

    async def _heard(self, report: Report) -> None:
        if report.worth_saying():
            loss = "" if report.loss is None else f", loss {report.loss:.3f}"
            self._say(f"{report.phase} {report.step}/{report.steps}{loss}")

    async def _beside(self, folder: Path) -> None:
        await exported(GgufFiles(self.config), folder, self._say)
