"""What a training run measured: every case of every suite, by the adapter and by what it would replace."""

from collections.abc import Sequence

import msgspec

HELD_OUT, FOREIGN_TOOLS, IRRELEVANCE = SUITES = ("held_out", "foreign_tools", "irrelevance")
"""What the gate looks at, in this order."""


class CaseOutcome(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """One case, and how it was answered."""

    id: str
    right: bool
    malformed: bool = False
    by_ast: bool = False
    """Right by the rules of the Berkeley leaderboard. The gate does not look at it."""


class Suite(msgspec.Struct, frozen=True, kw_only=True):
    """Cases of one kind: held_out, foreign_tools or irrelevance."""

    name: str
    outcomes: tuple[CaseOutcome, ...]

    @property
    def share(self) -> float:
        return sum(each.right for each in self.outcomes) / len(self.outcomes) if self.outcomes else 0.0

    @property
    def by_ast(self) -> float:
        return sum(each.by_ast for each in self.outcomes) / len(self.outcomes) if self.outcomes else 0.0

    @property
    def malformed(self) -> float:
        return sum(each.malformed for each in self.outcomes) / len(self.outcomes) if self.outcomes else 0.0


class Measures(msgspec.Struct, frozen=True, kw_only=True):
    """Of the new adapter, and of what answers now on the same cases."""

    candidate: tuple[Suite, ...]
    served: tuple[Suite, ...]
    """Empty where what answers now could not be asked."""
    against: int | None = None
    """The version that answers now; None: the base model."""
    comparable: bool = True
    """False: that version could not be asked on the base of this run."""
    tools_in_prompt: bool = False
    """Tools stand in the new adapter's prompt in service, as they did in training."""


def paired(candidate: Sequence[CaseOutcome], served: Sequence[CaseOutcome]) -> list[tuple[bool, bool]]:
    """Whether each is right, case by case, by id; what one of them was not asked says nothing."""
    before = {each.id: each.right for each in served}
    return [(each.right, before[each.id]) for each in candidate if each.id in before]
