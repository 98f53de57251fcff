"""How good an adapter is beside what answers now: the same cases, asked in one batch of the engine that serves."""

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from gpu_workers.evaluate.asking import Answered, Asker, OnDone, Side
from processors.dataset.lessons import Row
from processors.measure.by_ast import right_by_ast
from processors.measure.cases import Case, held_out, tools_of, words
from processors.measure.foreign import Foreign
from processors.measure.measures import SUITES, CaseOutcome, Measures, Suite
from processors.measure.mistakes import Judgement, classify, token_f1
from schemas.adapters import Evaluation


class CaseSizes(NamedTuple):
    """Of a measurement, at most."""

    held_out: int = 60
    max_tokens: int = 1024
    """Of a prompt and its right answer."""
    foreign: int = 24
    """Of made-up tools, and as many where nothing fits."""
    words: int = 0


class Measured(NamedTuple):
    """All that was asked and said, and what it comes to."""

    candidate: Side
    served: Side
    answers: Sequence[Answered]
    unasked: int | None = None
    """The version that answers now, where it cannot be asked on this base: `served` is the base model then."""

    @property
    def measures(self) -> Measures:
        asked = self.unasked is None
        return Measures(
            candidate=self.suites(self.candidate),
            served=self.suites(self.served) if asked else (),
            against=self.served.version if asked else self.unasked,
            comparable=asked,
            tools_in_prompt=self.candidate.tools_in_prompt,
        )

    def suites(self, side: Side) -> tuple[Suite, ...]:
        """Without one that had no case."""
        whole = (Suite(name=name, outcomes=tuple(self._outcomes(name, side))) for name in SUITES)
        return tuple(suite for suite in whole if suite.outcomes)

    def evaluation(self) -> Evaluation | None:
        """Held-out exact match, of the base model and of the candidate. None: nothing was held out."""
        base = Side(tools_in_prompt=self.candidate.tools_in_prompt)
        shares = [
            Suite(name="held_out", outcomes=tuple(self._outcomes("held_out", side))) for side in (base, self.candidate)
        ]
        before, after = (suite.share for suite in shares)
        return Evaluation(examples=len(shares[1].outcomes), before=before, after=after) if shares[1].outcomes else None

    def quality(self, side: Side) -> float | None:
        """How near its words come to the right ones, on average; None: there were none to say."""
        said = [(each.case.right, each.text) for each in self.of(side) if each.case.suite == "words"]
        near = [token_f1(right.content, text) for right, text in said if right is not None]
        return sum(near) / len(near) if near else None

    def of(self, side: Side) -> list[Answered]:
        return [each for each in self.answers if each.side == side]

    def _outcomes(self, suite: str, side: Side) -> Iterable[CaseOutcome]:
        for each in self.of(side):
            if each.case.suite == suite:
                found = judged(each)
                by_ast = not each.fell and right_by_ast(each.case.right, each.case.tools, each.text)
                yield CaseOutcome(id=each.case.id, right=found.right, malformed=found.malformed, by_ast=by_ast)


def judged(answered: Answered) -> Judgement:
    if answered.fell:
        return Judgement("no answer")
    return classify(answered.case.right, answered.text, answered.ended)


def unwatched(_done: int, _of: int) -> None:
    """Progress for nobody."""


def measure(
    asker: Asker,
    rows: Sequence[Row],
    candidate: Side,
    served: Side | None = None,
    sizes: CaseSizes = CaseSizes(),  # noqa: B008 - nobody writes it
    on_done: OnDone = unwatched,
) -> Measured:
    """`served`: the adapter that answers now; None: the base does. The base is asked what is held out in any case."""
    base = Side(tools_in_prompt=candidate.tools_in_prompt)
    served = base if served is None else served
    cases = cases_of(asker, rows, candidate, sizes)
    asked = [(case, side) for case in cases for side in dict.fromkeys((candidate, served))]
    if served != base:
        asked += [(case, base) for case in cases if case.suite == "held_out"]
    return Measured(candidate, served, asker.answers(asked, on_done))


def cases_of(asker: Asker, rows: Sequence[Row], side: Side, sizes: CaseSizes) -> list[Case]:
    """Long prompts of made-up tools come first: each list is read once, and then found."""

    def fits(case: Case) -> bool:
        return asker.fits(case, side, sizes.max_tokens)

    foreign = Foreign(own=tools_of(rows))
    made_up = [*foreign.calls(sizes.foreign), *foreign.nothing_fits(sizes.foreign)]
    shown = side.tools_in_prompt
    return [*made_up, *held_out(rows, sizes.held_out, fits, shown), *words(rows, sizes.words, fits, shown)]
