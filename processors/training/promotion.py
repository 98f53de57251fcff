"""May a new version answer for its role? Pure: what was measured comes in, and a verdict with its figures goes out.

It has to be better than what answers now by more than chance explains, on requests of the company that neither was
trained on; it may have lost nothing on the tools of others; and what it does with requests that need no tool, and how
often its calls cannot be read, are bounded whatever was there before. Where what answers now could not be asked, or
nothing was measured beside it, nobody knows whether it is better, and a person decides.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from processors.measure.confidence import mcnemar
from processors.measure.measures import (
    FOREIGN_TOOLS,
    HELD_OUT,
    IRRELEVANCE,
    SUITES,
    CaseOutcome,
    Measures,
    paired,
)
from processors.parameters import canonical

LEVEL = 0.05
"""A difference is one where chance alone would bring it about less often than this."""
LEAST = 10
"""With fewer cases, one that is right in half of them, where nothing was right before, is not told from chance."""


class GateFloors(msgspec.Struct, frozen=True, kw_only=True):
    """What the operator asks of every version."""

    on: bool = True
    """False: each version answers for its role as soon as it is ready."""
    irrelevance: float = 0.8
    malformed: float = 0.02


class Verdict(msgspec.Struct, frozen=True, kw_only=True):
    promoted: bool
    reason: str
    """One of: better, too_few, not_measured (where nothing answers yet), off; or malformed, irrelevance,
    not_comparable, not_measured, foreign_tools, worse, no_gain."""
    detail: str
    figures: str
    """What it stands on, as canonical JSON text."""


class Compared(msgspec.Struct, frozen=True, kw_only=True):
    """One suite: the new version beside what answers now, case by case."""

    cases: int
    """Of the new version."""
    share: float
    """Of them, right."""
    paired: int
    """Cases that both were asked."""
    served: float
    """Of these, right by what answers now."""
    won: int
    lost: int

    @property
    def gain(self) -> float:
        """How often chance would win so many of those that differ."""
        return _chance(self.won, self.lost)

    @property
    def loss(self) -> float:
        return _chance(self.lost, self.won)


def judge(measures: Measures | None, floors: GateFloors, answers: int | None) -> Verdict:
    """Total. `answers`: the version that does now. Over one nothing is promoted that was not measured beside it; where
    none does, what was not measured speaks neither for a version nor against it."""
    found = _compared(measures) if measures else {}
    malformed = _malformed(measures) if measures else (0, 0)
    figures = _figures(measures, floors, found, malformed)
    if not floors.on:
        return Verdict(promoted=True, reason="off", detail="The gate is off (RILLFOLD_GATE).", figures=figures)
    unknown = _not_comparable(measures, answers) or _not_measured(found, answers)
    objections = [*_below(found, malformed, floors), *unknown, *_lost(found), *_not_better(found, answers)]
    if objections:
        detail = " ".join(sentence for _, sentence in objections)
        return Verdict(promoted=False, reason=objections[0][0], detail=detail, figures=figures)
    reason, detail = _in_favour(found.get(HELD_OUT))
    return Verdict(promoted=True, reason=reason, detail=detail, figures=figures)


Objection = tuple[str, str]
"""A word, and a sentence with its numbers."""


def _below(found: Mapping[str, Compared], malformed: tuple[int, int], floors: GateFloors) -> list[Objection]:
    """Bounds of the measured shares as they are: nobody gets the benefit of the doubt."""
    objections = []
    odd, cases = malformed
    if cases and odd / cases > floors.malformed:
        told = f"{odd} of {cases} answers hold a call that cannot be read; {floors.malformed:.1%} of them may."
        objections.append(("malformed", told))
    if (quiet := found.get(IRRELEVANCE)) and quiet.share < floors.irrelevance:
        told = (
            f"{quiet.share:.1%} of {quiet.cases} requests that need no tool are answered without a call; "
            f"{floors.irrelevance:.1%} have to be."
        )
        objections.append((IRRELEVANCE, told))
    return objections


BY_HAND = "Compare them, and promote by hand: rillfold adapters promote."


def _not_comparable(measures: Measures | None, answers: int | None) -> list[Objection]:
    if measures is None or (measures.comparable and answers == measures.against):
        return []
    if answers is None:
        told = f"Version {measures.against} answers no more since this run began, and the base model was not asked."
    elif answers != measures.against:
        told = f"Version {answers} answers since this run began, and was not asked."
    else:
        told = (
            f"Version {measures.against} answers now and could not be asked on this version's base model: it stands on "
            "another one, or is not in this worker's store."
        )
    return [("not_comparable", f"{told} {BY_HAND}")]


def _not_measured(found: Mapping[str, Compared], answers: int | None) -> list[Objection]:
    own = found.get(HELD_OUT)
    if answers is None or (own and own.paired):
        return []
    told = (
        f"No held-out request of the company that neither was trained on was measured beside version {answers}, which "
        "answers now."
    )
    return [("not_measured", f"{told} {BY_HAND}")]


def _lost(found: Mapping[str, Compared]) -> list[Objection]:
    foreign = found.get(FOREIGN_TOOLS)
    if foreign is None or foreign.loss >= LEVEL:
        return []
    return [(FOREIGN_TOOLS, f"On the tools of others it {_beside(foreign)}: more than chance explains.")]


def _not_better(found: Mapping[str, Compared], answers: int | None) -> list[Objection]:
    """Where there are too few cases to prove anything, it is enough not to have lost more than was won; but nothing
    takes a version's place that does all as it does."""
    own = found.get(HELD_OUT)
    if own is None or own.gain < LEVEL:
        return []
    few, same = own.paired < LEAST, answers is not None and not own.won and not own.lost
    if (few and own.lost > own.won) or own.loss < LEVEL:
        return [("worse", f"On the company's held-out requests it {_beside(own)}.")]
    if few and not (same and own.paired):
        return []
    why = f"no case of {own.paired} tells them apart" if same else "no more than chance explains"
    return [("no_gain", f"On the company's held-out requests it {_beside(own)}: {why}.")]


def _in_favour(own: Compared | None) -> tuple[str, str]:
    if own is None:
        return "not_measured", "No held-out request of the company was measured: nothing speaks against it."
    if own.gain >= LEVEL:
        told = f"On {own.paired} held-out requests that neither was trained on, too few to prove a gain,"
        return "too_few", f"{told} it {_beside(own)}."
    return "better", f"On the company's held-out requests it {_beside(own)}."


def _beside(each: Compared) -> str:
    right = f"is right in {each.share:.1%} of {each.cases}, against {each.served:.1%} of what answers now"
    return f"{right} ({each.won} won, {each.lost} lost)"


def _compared(measures: Measures) -> dict[str, Compared]:
    """Of the suites that have cases at all."""
    served = {suite.name: suite.outcomes for suite in measures.served}
    found = {}
    for suite in measures.candidate:
        if suite.outcomes:
            found[suite.name] = _pairs(suite.outcomes, served.get(suite.name, ()))
    return found


def _pairs(candidate: Sequence[CaseOutcome], served: Sequence[CaseOutcome]) -> Compared:
    pairs = paired(candidate, served)
    return Compared(
        cases=len(candidate),
        share=sum(each.right for each in candidate) / len(candidate),
        paired=len(pairs),
        served=sum(before for _, before in pairs) / len(pairs) if pairs else 0.0,
        won=sum(after and not before for after, before in pairs),
        lost=sum(before and not after for after, before in pairs),
    )


def _malformed(measures: Measures) -> tuple[int, int]:
    """Of what it is asked in service: requests of the company and those that need no tool, and where tools stand in its
    prompt those for others' tools as well. Who learned its own by heart never sees such a prompt: a call that it fails
    to write there is not right, and no more."""
    in_service = SUITES if measures.tools_in_prompt else (HELD_OUT, IRRELEVANCE)
    served = [suite for suite in measures.candidate if suite.name in in_service]
    outcomes = [each for suite in served for each in suite.outcomes]
    return sum(each.malformed for each in outcomes), len(outcomes)


def _chance(more: int, fewer: int) -> float:
    """Of as many throws of a coin as cases differ, `more` or more are heads: one side of McNemar's exact test."""
    return mcnemar(more, fewer) / 2 if more > fewer else 1.0


def _figures(
    measures: Measures | None, floors: GateFloors, found: Mapping[str, Compared], malformed: tuple[int, int]
) -> str:
    suites: dict[str, Any] = {
        name: {**msgspec.structs.asdict(each), "gain_p": each.gain, "loss_p": each.loss} for name, each in found.items()
    }
    odd, cases = malformed
    return canonical(
        {
            "against": measures.against if measures else None,
            "comparable": measures is None or measures.comparable,
            "floors": {"irrelevance": floors.irrelevance, "malformed": floors.malformed},
            "level": LEVEL,
            "malformed": {"answers": odd, "cases": cases},
            "suites": suites,
        }
    )
