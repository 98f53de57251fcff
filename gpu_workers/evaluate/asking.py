"""Cases are asked of the serving engine, all at once, of the base and of any adapters: what is measured is what is
served. Greedy. A row ends early when nothing that may follow changes its verdict."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from gpu_workers.adapters.weights import LoraWeights, read_adapter
from gpu_workers.bases.chat import Chat
from gpu_workers.bases.device import Device
from gpu_workers.refused import PromptTooLong, Refused, TooLong
from gpu_workers.serve.engine.decoder import Decoder
from gpu_workers.serve.engine.engine import Engine, Fell, LoraRow, Step
from gpu_workers.serve.engines.asked import Base, RowMaker
from gpu_workers.serve.port import AdapterKey, AdapterSpec, Question
from gpu_workers.serve.schedule.pages import PAGE
from gpu_workers.serve.schedule.rows import Limits
from processors.answers import CALL, begins_bare, may_begin_bare, parse, tagged
from processors.measure.cases import Case

ROWS, STEP = 64, 512
"""So many rows run at once, and so many tokens go through the model in a step. Nobody waits for a single one."""
MEMORY_SHARE = 0.75
"""Of what is free, for keys and values: what a step computes needs room, too."""
SPARE = 32
"""Tokens that an answer may be longer than the longest right one of its suite: a wrong call has room to end, too."""
IDLE_TOKENS, CALL_TOKENS = 32, 96
"""Whoever has begun no call in so many tokens calls nothing; and so many are there for one that was begun."""

OnDone = Callable[[int, int], None]
"""(answers done, answers in all)."""


class Side(NamedTuple):
    """Who is asked: the base, or the adapter of a folder."""

    folder: Path | None = None
    """None: the base model alone."""
    tools_in_prompt: bool = False
    """As it was trained, so it is asked."""
    version: int | None = None


class Answered(NamedTuple):
    """What one side said to one case."""

    case: Case
    side: Side
    text: str
    ended: bool
    """The model itself stopped, or its verdict was settled; False: it had no more room."""
    fell: str = ""
    """Why it said nothing at all."""


class Asker:
    """One base model, and who stands on it. A model under training has its adapter taken off first."""

    def __init__(self, model: Any, chat: Chat, free: Callable[[], int | None] | None = None) -> None:
        """`free`: bytes where the model lies; None: nobody tells."""
        self._decoder, self._chat = Decoder(model), chat
        self._free = free or Device(self._decoder.embedding.device.type, "float32", 1).free
        self._stops = chat.ends
        self._base = Base("base", "", self._decoder.context)
        self._rows = RowMaker(chat, self._base)
        self._weights: dict[Path, LoraWeights] = {}

    def answers(self, asked: Sequence[tuple[Case, Side]], on_done: OnDone) -> list[Answered]:
        """In the order in which they were asked. A case that no prompt of this base holds is left out."""
        limits = self._limits([case for case, _ in asked])
        rows = {
            ticket: row
            for ticket, (case, side) in enumerate(asked)
            if (row := self._row(ticket, case, side, limits[case.suite])) is not None
        }
        ended = dict(self._ended(rows, {ticket: asked[ticket][0] for ticket in rows}, on_done))
        return [self._answered(*asked[ticket], row, ended[ticket]) for ticket, row in rows.items()]

    def fits(self, case: Case, side: Side, most: int) -> bool:
        """Its prompt and its right answer, in tokens."""
        assert case.right is not None
        sample = self._chat.sample((*case.prompt, case.right), _shown(case, side))
        return len(sample.prompt) + len(sample.answer) <= min(most, self._decoder.context)

    def _limits(self, cases: Iterable[Case]) -> dict[str, int]:
        longest: dict[str, int] = {}
        for case in {case.id: case for case in cases}.values():
            right = IDLE_TOKENS + CALL_TOKENS if case.right is None else self._length(case) + SPARE
            longest[case.suite] = max(longest.get(case.suite, 0), right)
        return longest

    def _length(self, case: Case) -> int:
        assert case.right is not None
        return len(self._chat.sample((*case.prompt, case.right)).answer)

    def _row(self, ticket: int, case: Case, side: Side, limit: int) -> LoraRow | None:
        question = Question(id=case.id, messages=case.prompt, tools=_shown(case, side), max_tokens=limit)
        spec = None if side.folder is None else AdapterSpec(key=AdapterKey("measured/adapter", 1), folder=side.folder)
        try:
            return self._rows.row(ticket, question, spec, self._of(side))
        except PromptTooLong:
            return None

    def _of(self, side: Side) -> LoraWeights | None:
        if side.folder is None:
            return None
        if side.folder not in self._weights:
            like = self._decoder.embedding
            self._weights[side.folder] = read_adapter(side.folder, like.dtype, str(like.device))
        return self._weights[side.folder]

    def _ended(
        self, rows: dict[int, LoraRow], cases: dict[int, Case], on_done: OnDone
    ) -> Iterator[tuple[int, Refused | str]]:
        """Each ticket, with the engine's word for how it ended, once it did."""
        engine = self._engine(list(rows.values()))
        for ticket, row in rows.items():
            try:
                engine.submit(row)
            except TooLong as error:
                yield ticket, error
        done = len(rows) - len(engine.rows())
        while engine.busy():
            if over := list(self._over(engine, engine.step(), cases)):
                done += len(over)
                on_done(done, len(rows))
            yield from over

    def _over(self, engine: Engine, step: Step, cases: dict[int, Case]) -> Iterator[tuple[int, Refused | str]]:
        going = {row.ticket: row for row in engine.rows()}
        for each in step:
            if isinstance(each, Fell):
                yield each.ticket, each.why
            elif each.finish is not None:
                yield each.ticket, each.finish
            elif self._settled(cases[each.ticket], going[each.ticket]):
                engine.cancel(each.ticket)
                yield each.ticket, "settled"

    def _settled(self, case: Case, row: LoraRow) -> bool:
        """Nothing that may follow changes the verdict."""
        bare = self._chat.form.bare
        if case.right is None:
            if len(row.said) != IDLE_TOKENS:
                return False
            said = self._chat.decode(row.said)
            return CALL not in said and not (bare and begins_bare(said))
        if not case.right.tool_calls or case.right.content:
            return False
        # A call is right, with no words before it; and this can begin with one no more. A token says a letter at least.
        said = self._chat.decode(row.said[: len(CALL)]).lstrip()
        return not (said.startswith(CALL) or CALL.startswith(said) or (bare and may_begin_bare(said)))

    def _engine(self, rows: Sequence[LoraRow]) -> Engine:
        """With memory for those that run at once, and no more than is there: then fewer run at once, one at least."""
        most, *others = sorted((-(-row.final_length // PAGE) for row in rows), reverse=True)[:ROWS] or [0]
        free = self._free()
        room = sum(others) if free is None else int(free * MEMORY_SHARE) // self._decoder.page_bytes(PAGE) - most - 2
        pages = 2 + most + max(0, min(sum(others), room))
        limits = Limits(rows=ROWS, pages=pages, step=STEP, chunk=STEP, waiting=max(1, len(rows)))
        return Engine(self._decoder, self._stops, limits)

    def _answered(self, case: Case, side: Side, row: LoraRow, how: Refused | str) -> Answered:
        if isinstance(how, Refused):
            return Answered(case, side, "", True, f"{how.reason}: {how}")
        said = self._chat.decode(_before(row.said, self._stops))
        return Answered(case, side, tagged(said, parse(said, self._chat.form), self._chat.form), how != "length")


def _shown(case: Case, side: Side) -> str | None:
    return case.tools if case.shown or side.tools_in_prompt else None


def _before(said: Sequence[int], stops: frozenset[int]) -> list[int]:
    return list(said[:-1] if said and said[-1] in stops else said)
