"""Makes conversations until there are enough that pass every check; what fails is dropped and counted by reason."""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import NamedTuple

import msgspec

from processors.dataset.turns import is_held_out
from processors.errors import ModelAway
from processors.synthetic import checks
from processors.synthetic.checks import Judge
from processors.synthetic.definition import ToolDefinition, must_be_usable
from processors.synthetic.lots import Lots
from processors.synthetic.making import Made, MadeKind, Making
from processors.synthetic.mix import Mix
from processors.synthetic.simulated import NotExecuted
from processors.synthetic.values import LEARNED, MEASURED, Unsatisfiable, is_open, leaves

ATTEMPTS = 60
"""For one example."""
PATIENCE = 8
"""After so many tries of a writer of which more than half are no use, it is asked no more."""


Writer = Callable[[str, float], str]
"""(a request, temperature) -> the same request in other words. Raises ModelAway."""


class Harvest(NamedTuple):
    """What was made at one go."""

    made: tuple[Made, ...]
    dropped: Mapping[str, int]
    """By reason."""
    notes: tuple[str, ...] = ()
    """For people, a line each."""


class HeldOut(NamedTuple):
    """What is measured with, and so never learned: its words, and its calls with open values."""

    questions: frozenset[str] = frozenset()
    calls: frozenset[str] = frozenset()


class _Wording(NamedTuple):
    writer: Writer
    tried: Counter[bool]


class Generator:
    """`judge` is asked after the rules; `writer` words what is learned, and never what is measured."""

    def __init__(
        self, tools: Sequence[ToolDefinition], judge: Judge | None = None, writer: Writer | None = None
    ) -> None:
        must_be_usable(tools)
        self._tools = {tool.name: tool for tool in tools}
        self._making, self._judge = Making(tools), judge
        self._notes: list[str] = []
        self._wording = _Wording(writer, Counter()) if writer else None

    def measured(self, mix: Mix, seed: object) -> Harvest:
        """Held out: by the dataset's rule, and of values that are never learned."""
        return self._batch(mix, Lots("measured", seed), MEASURED, HeldOut(), set())

    def learned(self, mix: Mix, seed: object, apart: HeldOut, before: Iterable[Made] = ()) -> Harvest:
        """Nothing that is held out, nor that was made before."""
        return self._batch(mix, Lots("learned", seed), LEARNED, apart, {each.question for each in before})

    def held_out(self, made: Iterable[Made]) -> HeldOut:
        there = list(made)
        calls = {call for each in there for call in self._open_calls(each)}
        return HeldOut(frozenset(each.question for each in there), frozenset(calls))

    def _batch(self, mix: Mix, lots: Lots, side: int, apart: HeldOut, seen: set[str]) -> Harvest:
        made: list[Made] = []
        dropped, self._notes = Counter[str](), []
        for _ in range(ATTEMPTS * mix.examples):
            if len(made) == mix.examples:
                break
            each = self._one(mix, lots, side)
            reason = "unsatisfiable" if each is None else self._objection(each, side, apart, seen)
            if each is None or reason:
                dropped[reason or "unsatisfiable"] += 1
                continue
            each = self._worded(each, mix.temperature, apart, seen, dropped) if side == LEARNED else each
            seen.add(each.question)
            made.append(each)
        if len(made) < mix.examples:
            self._notes.append(
                f"{len(made)} of {mix.examples} examples were made: these tools let nothing else be said."
            )
        return Harvest(tuple(made), dict(dropped), tuple(self._notes))

    def _one(self, mix: Mix, lots: Lots, side: int) -> Made | None:
        kinds = [kind for kind in mix.kinds if self._beginnings(kind, mix)]
        kind = kinds[lots.weighed([mix.kinds[each] for each in kinds])]
        tools = self._beginnings(kind, mix)
        tool = tools[lots.weighed([mix.tools[each.name] for each in tools])]
        try:
            return self._making.made(kind, tool, lots, side, mix.temperature)
        except (NotExecuted, Unsatisfiable):
            return None

    def _beginnings(self, kind: MadeKind, mix: Mix) -> list[ToolDefinition]:
        return [tool for tool in self._tools.values() if mix.tools.get(tool.name) and self._making.can(kind, tool)]

    def _objection(self, made: Made, side: int, apart: HeldOut, seen: set[str]) -> str | None:
        if is_held_out(made.question) != bool(side):
            return "of the held-out side" if not side else "of the learned side"
        if made.question in seen:
            return "said before"
        if made.question in apart.questions:
            return "held out by words"
        if not apart.calls.isdisjoint(self._open_calls(made)):
            return "held out by values"
        return self._failed_check(made)

    def _failed_check(self, made: Made) -> str | None:
        for name, check in (("format", checks.form), ("execution", checks.execution), ("rules", checks.by_rules)):
            if check(made, self._tools):
                return name
        return "judge" if self._judged(made) else None

    def _judged(self, made: Made) -> str | None:
        """One that is away is asked no more; what is made after it has passed the rules."""
        if self._judge is None:
            return None
        try:
            return self._judge(made, self._tools)
        except ModelAway as error:
            self._judge = None
            self._notes.append(f"{error} Rules judge the rest.")
            return None

    def _worded(self, made: Made, temperature: float, apart: HeldOut, seen: set[str], dropped: Counter[str]) -> Made:
        """In a writer's words where they are of use; else as the templates have it."""
        if self._wording is None:
            return made
        writer, tried = self._wording
        try:
            text = writer(made.question, temperature).strip()
        except ModelAway as error:
            self._wording = None
            self._notes.append(f"{error} Templates word the rest.")
            return made
        first, *rest = made.messages
        other = made._replace(messages=(msgspec.structs.replace(first, content=text), *rest))
        reason = self._objection(other, LEARNED, apart, seen) if text else "format"
        tried[reason is None] += 1
        if reason is None:
            return other
        dropped[f"writer: {reason}"] += 1
        if tried[False] > tried[True] and tried.total() >= PATIENCE:
            self._wording = None
            self._notes.append(
                f"Of {tried.total()} requests that a writer worded {tried[False]} are no use. Templates go on."
            )
        return made

    def _open_calls(self, made: Made) -> list[str]:
        """Those with a value that stands on one side alone."""
        return [
            f"{use.name} {use.arguments}"
            for message in made.messages
            for use in message.tool_calls
            if any(
                is_open(schema)
                for _, _, schema in leaves(msgspec.json.decode(use.arguments), self._tools[use.name].parameters)
            )
        ]
