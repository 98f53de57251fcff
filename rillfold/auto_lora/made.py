"""Made conversations by the names that users know: a generator, and what it makes as a file and as events."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from hashlib import sha256
from pathlib import Path
from secrets import token_hex
from typing import overload

import msgspec

from processors.synthetic.checks import Judge
from processors.synthetic.definition import ToolDefinition
from processors.synthetic.generator import Generator, Harvest, HeldOut, Writer
from processors.synthetic.making import Made
from processors.synthetic.mix import first_mix
from rillfold.auto_lora.config import AGENT, TrainingConfig
from schemas.company import SYNTHETIC, ConversationIngested
from schemas.envelope import derived_id
from schemas.errors import Stop


class NotADataset(Stop):
    """A file of something else."""


class ToolCallingDataset(Sequence[Made]):
    """Conversations that were made, and how many were dropped for what."""

    def __init__(
        self, made: Sequence[Made] = (), dropped: Mapping[str, int] | None = None, notes: Sequence[str] = ()
    ) -> None:
        self._made, self.dropped, self.notes = tuple(made), dict(dropped or {}), tuple(notes)

    @classmethod
    def of(cls, batch: Harvest) -> ToolCallingDataset:
        return cls(batch.made, batch.dropped, batch.notes)

    def __len__(self) -> int:
        return len(self._made)

    @overload
    def __getitem__(self, place: int) -> Made: ...

    @overload
    def __getitem__(self, place: slice) -> tuple[Made, ...]: ...

    def __getitem__(self, place: int | slice) -> Made | tuple[Made, ...]:
        return self._made[place]

    def __iter__(self) -> Iterator[Made]:
        return iter(self._made)

    def save(self, path: Path | str) -> None:
        """A conversation a line, as JSON."""
        Path(path).write_bytes(b"".join(msgspec.json.encode(each) + b"\n" for each in self._made))

    @classmethod
    def load(cls, path: Path | str) -> ToolCallingDataset:
        lines = Path(path).read_bytes().splitlines()
        try:
            return cls([msgspec.json.decode(line, type=Made) for line in lines])
        except msgspec.DecodeError as error:
            raise NotADataset(f"{path} is no dataset of ToolCallingDataset.save: {error}. Make it again.") from error

    def events(self, company: str, now: int, loop: str | None = None) -> list[ConversationIngested]:
        return [event_of(each, company, now, loop) for each in self._made]


class SyntheticDataGenerator:
    """From tools alone. `judge` and `writer` as in docs/auto-lora.md."""

    def __init__(
        self,
        tools: Sequence[ToolDefinition],
        config: TrainingConfig | None = None,
        *,
        judge: Judge | None = None,
        writer: Writer | None = None,
    ) -> None:
        self._config = config or TrainingConfig()
        self._generator = Generator(tools, judge, writer)
        self._names = [tool.name for tool in tools]
        self._apart = HeldOut()

    def generate_held_out(self, count: int) -> ToolCallingDataset:
        """To measure on. What is generated from then on shares nothing with it."""
        batch = self._generator.measured(first_mix(self._names, count, self._config.temperature), self._config.seed)
        self._apart = self._generator.held_out(batch.made)
        return ToolCallingDataset.of(batch)

    def generate(self, count: int | None = None) -> ToolCallingDataset:
        mix = first_mix(self._names, count or self._config.num_synthetic_examples, self._config.temperature)
        return ToolCallingDataset.of(self._generator.learned(mix, self._config.seed, self._apart))


def loop_of(what: Sequence[Made | ToolDefinition], seed: int, *, shared: bool = False) -> str:
    """The name of who learns. In a `shared` log others' conversations stand beside its own, perhaps of the same tools
    and seed for another base: there each loop has a name of its own. Else the same again has the same."""
    told = sha256(b"%d" % seed + msgspec.json.encode(what, order="deterministic")).hexdigest()[:16]
    return f"loop-{told}-{token_hex(4)}" if shared else f"loop-{told}"


def event_of(made: Made, company: str, now: int, loop: str | None = None) -> ConversationIngested:
    """The same conversation of the same loop has the same id, whoever makes it again."""
    of = f"{company}/{AGENT}/{loop}" if loop else f"{company}/{AGENT}"
    id_ = derived_id(of, msgspec.json.encode(made.messages).decode())
    return ConversationIngested(
        id=id_,
        company=company,
        time=now,
        correlation=id_,
        entity=loop,
        agent=AGENT,
        messages=made.messages,
        origin=SYNTHETIC,
    )
