"""What a company may have in a day of what all share. Pure: the clock is an argument, what was used is in the log."""

from collections.abc import Collection
from datetime import UTC, datetime

from processors.training.admit import NotAdmitted, RunBounds
from projections.training_runs import Run
from schemas.codec.primitives import MAX_TIME

DAY = 86_400_000_000
"""Microseconds. The last so many, not a day of the calendar: nobody waits for midnight."""
LAST_SECOND = MAX_TIME // 1_000_000


def over(bounds: RunBounds, begun: Collection[Run], now: int) -> NotAdmitted | None:
    """May one more run of the company begin? `begun`: all that ever were, those that failed among them, and those that
    were refused once their dataset was read: that is work, too.

    A run that has begun goes to its end, and counts until its last word is a day old: the worker says that, whatever
    date a claim bears.
    """
    since = now - DAY
    heard = sorted(at for run in begun if (at := max(run.accepted_at, run.updated_at)) > since)
    if bounds.runs_a_day and len(heard) >= bounds.runs_a_day:
        free = heard[len(heard) - bounds.runs_a_day] + DAY
        detail = f"{len(heard)} runs were at work in 24 hours, and {bounds.runs_a_day} may be. {_again(free)}"
        return NotAdmitted("over_quota", detail)
    worked = sorted((run.updated_at, run.worked) for run in begun if run.updated_at > since and run.worked)
    used = sum(spent for _, spent in worked)
    if bounds.seconds_a_day and used >= (most := int(bounds.seconds_a_day * 1e6)):
        detail = f"Runs took {used / 1e6:.0f} seconds in 24 hours, and {bounds.seconds_a_day:.0f} is what they may."
        return NotAdmitted("over_budget", f"{detail} {_again(_below(worked, used, most))}")
    return None


def _below(worked: Collection[tuple[int, int]], used: int, most: int) -> int:
    """When enough of it is a day old."""
    for last, spent in worked:
        used -= spent
        if used < most:
            return last + DAY
    raise AssertionError("nothing used is below everything")


def _again(free: int) -> str:
    """An event may say that it is of the last year that there is."""
    seconds = min(-(-free // 1_000_000), LAST_SECOND)
    return f"Send it again after {datetime.fromtimestamp(seconds, UTC):%Y-%m-%d %H:%M:%S} UTC."
