"""A measurement as files for people: figures, and every answer that was wrong. No torch: a worker puts them away, too.

The store keeps them beside an artifact, under its hash (`FolderStore.measures`).
"""

from collections.abc import Sequence
from pathlib import Path

import msgspec

from processors.measure.confidence import SuiteDifference, difference
from processors.measure.measures import Measures
from processors.measure.mistakes import Mistake
from schemas.company import Message

METRICS, ERRORS = "metrics.json", "error_analysis.json"


class SuiteFigures(msgspec.Struct, frozen=True, kw_only=True):
    """Of one suite, by both."""

    suite: str
    difference: SuiteDifference
    malformed: float
    """Share of the candidate's answers."""
    served_malformed: float
    ast: float | None = None
    """Share of the candidate's answers that the Berkeley leaderboard's rules call right; None: an older release did not
    say."""
    served_ast: float | None = None


class Metrics(msgspec.Struct, frozen=True, kw_only=True):
    against: int | None
    """The version that it was held against; None: the base model."""
    suites: tuple[SuiteFigures, ...]
    quality: float | None = None
    """How near its words come to the right ones (token F1); None: there were none to say."""
    served_quality: float | None = None
    judge: str | None = None
    """What a judge made of the words, or why it said nothing."""


class WrongAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """One answer that was not the right one."""

    id: str
    suite: str
    prompt: tuple[Message, ...]
    expected: Message | None
    """None: no call."""
    predicted: str
    mistake: Mistake
    detail: str = ""


def figures(measures: Measures) -> tuple[SuiteFigures, ...]:
    served = {suite.name: suite for suite in measures.served}
    return tuple(
        SuiteFigures(
            suite=suite.name,
            difference=difference(suite, served[suite.name]),
            malformed=suite.malformed,
            served_malformed=served[suite.name].malformed,
            ast=suite.by_ast,
            served_ast=served[suite.name].by_ast,
        )
        for suite in measures.candidate
        if suite.name in served
    )


def write(folder: Path, metrics: Metrics, wrong: Sequence[WrongAnswer]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, what in ((METRICS, metrics), (ERRORS, wrong)):
        (folder / name).write_bytes(msgspec.json.format(msgspec.json.encode(what), indent=1) + b"\n")
