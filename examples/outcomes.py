"""A spoilt adapter is refused, and what people and tools said of it mends the next one.

    python examples/outcomes.py

Nothing else is needed: the log is in memory, the base model is made here. A house's agent switches lights. Version 1
has learned half of the rooms and answers now. Then a bad habit comes into the log: told to switch off, the agent
switches on. Version 2 learns from everything, and the gate refuses it. Half of the mistakes are corrected, of the
others the lamp says that it failed: version 3 learns from that, and may answer.
"""

import asyncio
import json
import tempfile
from collections.abc import Iterator, Sequence
from itertools import product
from pathlib import Path
from typing import Any, NamedTuple

from msgspec.structs import replace

from gpu_workers.bases.before_torch import settle

settle()

from gpu_workers.adapters.store import Facts, FolderStore  # noqa: E402 - only now: torch is imported with them
from gpu_workers.bases import tiny  # noqa: E402
from gpu_workers.bases.chat import render  # noqa: E402
from gpu_workers.bases.files import BaseIdentity  # noqa: E402
from gpu_workers.train.lines import Report, RunSpec  # noqa: E402
from gpu_workers.train.run import run  # noqa: E402
from processors.dataset.selection import Selection  # noqa: E402
from processors.dataset.turns import is_held_out  # noqa: E402
from processors.training.promotion import GateFloors, Verdict, judge  # noqa: E402
from processors.training.settings import TrainSettings  # noqa: E402
from schemas.company import ConversationIngested, FeedbackGiven, Message, ToolUse  # noqa: E402
from schemas.envelope import Event  # noqa: E402
from schemas.tools import ToolReturned  # noqa: E402
from schemas.topics import TopicNames  # noqa: E402
from streams.history import replay  # noqa: E402
from streams.log.memory import MemoryLog  # noqa: E402
from streams.log.outgoing import to_outgoing  # noqa: E402
from streams.log.port import TopicSpec  # noqa: E402

COMPANY, TOOL = "house", "set_light"
ROOMS = ("kitchen", "hall", "office", "cellar", "attic", "garage", "bathroom", "porch")
FIRST_ROOMS = ROOMS[:4]
SENTENCES = (
    "Turn {state} the light in the {room}.",
    "Please switch the {room} light {state}.",
    "{room} light {state}, please.",
    "I want the light in the {room} {state}.",
    "Could you put the {room} light {state}?",
    "The {room}: light {state}.",
)
LEARNING = TrainSettings(rank=64, alpha=64.0, dropout=0.0, steps=200, learning_rate=3e-3, micro_batch=8)
"""A base that was made a second ago knows nothing: an adapter of it has to be as wide as the base itself."""
FLOORS = GateFloors(irrelevance=0.0, malformed=1.0)
"""And such a base has no small talk."""


class Wish(NamedTuple):
    text: str
    room: str
    state: str

    @property
    def held_out(self) -> bool:
        return is_held_out(self.text)


WISHES = [
    Wish(sentence.format(room=room, state=state), room, state)
    for sentence, room, state in product(SENTENCES, ROOMS, ("on", "off"))
]


def call(wish: Wish, state: str) -> Message:
    arguments = json.dumps({"room": wish.room, "state": state}, separators=(",", ":"))
    return Message(role="assistant", tool_calls=(ToolUse(name=TOOL, arguments=arguments),))


def talk(number: int, wish: Wish, state: str) -> ConversationIngested:
    messages = (Message(role="user", content=wish.text), call(wish, state))
    return ConversationIngested(**_facts(number, f"talk-{number}"), agent="lights", messages=messages)


def _facts(number: int, id_: str) -> dict[str, Any]:
    return {"id": id_, "company": COMPANY, "time": number, "correlation": f"job-{number}"}


def before_the_habit() -> list[Event]:
    return [talk(n, wish, wish.state) for n, wish in enumerate(WISHES) if wish.held_out or wish.room in FIRST_ROOMS]


def with_the_habit() -> list[Event]:
    """Two of three lights that were to go out went on; then the words of people and lamps."""
    out = [n for n, wish in enumerate(WISHES) if wish.state == "off" and not wish.held_out]
    wrong = [n for place, n in enumerate(out) if place % 3]
    talks = [talk(n, wish, "on" if n in wrong else wish.state) for n, wish in enumerate(WISHES)]
    return [*talks, *_words(wrong)]


def _words(wrong: Sequence[int]) -> Iterator[Event]:
    for place, n in enumerate(wrong):
        if place % 2:
            yield FeedbackGiven(**_facts(n, f"said-{n}"), about=f"talk-{n}", correction=call(WISHES[n], "off"))
        else:
            yield ToolReturned(**_facts(n, f"reply-{n}"), call=f"call-{n}", job=f"job-{n}", tool=TOOL, ok=False)


class House:
    """Where it is trained: a folder, with a base model and a store."""

    def __init__(self, root: Path) -> None:
        self.root, self.base = root, str(_made(root / "tiny"))

    def version(
        self, name: str, events: Sequence[Event], served: Path | None, select: Selection
    ) -> tuple[Path, Verdict]:
        """The adapter's folder, and what the gate says of it beside what is served."""
        rows, out = self.root / f"{name}.jsonl", self.root / name
        out.mkdir()
        spec = RunSpec(
            rows=rows,
            rows_sha256=asyncio.run(_rows(events, rows, select)),
            out=out,
            cache=self.root,
            base_model=self.base,
            method="lora",
            settings=replace(LEARNING, select=select),
            threads=1,
            served=served,
            served_version=1 if served else None,
        )
        trained = run(spec, _unheard)
        verdict = judge(trained.measures, FLOORS, spec.served_version)
        share = trained.evaluation.after if trained.evaluation else 0.0
        print(f"{name}: {share:.2f} of the held-out wishes right: {_said(verdict)}", flush=True)
        return self._stored(out, trained.base), verdict

    def _stored(self, out: Path, base: BaseIdentity) -> Path:
        """As a worker puts it away: with what it was made on."""
        facts = Facts(company=COMPANY, base_model=base.name, base_sha256=base.sha256, tools_in_prompt=False)
        store = FolderStore(self.root / "store")
        return store.place(store.put(out, facts))


def _said(verdict: Verdict) -> str:
    return f"{'promoted' if verdict.promoted else 'refused'} ({verdict.reason}). {verdict.detail}"


def _unheard(_report: Report) -> None: ...


def _made(folder: Path) -> Path:
    return tiny.make(folder, [render((Message(role="user", content=w.text), call(w, w.state))) for w in WISHES])


async def _rows(events: Sequence[Event], path: Path, select: Selection) -> str:
    """As a worker builds them from a log of any size."""
    names, log = TopicNames(), MemoryLog()
    await log.create([TopicSpec(names.wire(topic), 1) for topic in ("company-data", "tool-result")])
    await log.append([to_outgoing(event, names) for event in events])
    ranges = await replay.everything_up_to_now(log, names)
    return (await replay.build(log, names, COMPANY, ranges, path, select=select)).rows_sha256


def told(house: House) -> list[Verdict]:
    """What the gate says of each version, in their order."""
    first, half = house.version("version 1, half of the rooms", before_the_habit(), None, Selection())
    everything = Selection(outcomes=False)
    _, spoilt = house.version("version 2, everything that was said", with_the_habit(), first, everything)
    _, mended = house.version("version 3, outcomes and corrections", with_the_habit(), first, Selection())
    return [half, spoilt, mended]


def main() -> None:
    with tempfile.TemporaryDirectory(prefix="outcomes-") as root:
        told(House(Path(root)))


if __name__ == "__main__":
    main()
