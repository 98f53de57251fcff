"""How far a feed of changed rows has come: what it looks through next, and where it goes on after a cut."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

Positions = Mapping[str, Mapping[int, int]]


class Span(NamedTuple):
    """Of one source partition the offsets from `start` up to but without `stop`."""

    topic: str
    partition: int
    start: int
    stop: int


class FeedStep(NamedTuple):
    """Spans are looked through side by side, an offset of each at a time: a busy partition does not hide another."""

    ahead: int
    """Offsets from the start of its span."""
    span: int


def spans(since: Positions, now: Positions) -> list[Span]:
    """What is known now and was not known then."""
    all_ = (Span(t, p, since.get(t, {}).get(p, 0), stop) for t, of in now.items() for p, stop in of.items())
    return [span for span in all_ if span.start < span.stop]


def reached(now: Positions, through: Sequence[Span], cut: FeedStep | None) -> dict[str, dict[int, int]]:
    """Where to go on when everything before the cut was told. Without a cut everything was."""
    following = {topic: dict(of) for topic, of in now.items()}
    for n, span in enumerate(through if cut else ()):
        assert cut is not None
        told = span.start + cut.ahead + (n < cut.span)
        following[span.topic][span.partition] = min(told, span.stop)
    return following
