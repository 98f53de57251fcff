"""Sessions: what belongs together for whoever asked. One row a session, with the jobs that it led to."""

import msgspec

from projections.projection import Projection
from schemas.envelope import Event
from schemas.jobs import JobRequested

# So many jobs are listed. A request that is repeated later than that counts twice.
LISTED = 32
TASK_CHARS = 200


class Asked(msgspec.Struct, frozen=True, kw_only=True):
    """One job of a session. How it stands, `company_automation_jobs` knows."""

    job: str
    task: str
    time: int


class Session(msgspec.Struct, frozen=True, kw_only=True):
    """A session so far."""

    company: str
    session: str
    jobs: int = 0
    first_at: int = 0
    last_at: int = 0
    latest: tuple[Asked, ...] = ()
    """The last jobs, oldest first."""


def key(event: Event) -> str | None:
    return f"{event.company}/{event.session}" if isinstance(event, JobRequested) and event.session else None


def initial(row: str) -> Session:
    company, _, session = row.partition("/")
    return Session(company=company, session=session)


def fold(state: Session, event: Event) -> Session:
    assert isinstance(event, JobRequested)
    if any(asked.job == event.job for asked in state.latest):
        return state
    asked = Asked(job=event.job, task=event.task[:TASK_CHARS], time=event.time)
    once = Session(
        company=state.company,
        session=state.session,
        jobs=1,
        first_at=event.time,
        last_at=event.time,
        latest=(asked,),
    )
    return merge(state, once) if state.jobs else once


def merge(a: Session, b: Session) -> Session:
    """Jobs are spread over partitions; each partition knows its own."""
    latest = sorted((*a.latest, *b.latest), key=lambda asked: (asked.time, asked.job))
    return Session(
        company=a.company,
        session=a.session,
        jobs=a.jobs + b.jobs,
        first_at=min(a.first_at, b.first_at),
        last_at=max(a.last_at, b.last_at),
        latest=tuple(latest[-LISTED:]),
    )


SESSIONS = Projection(
    name="sessions",
    version=1,
    topics=("automation-job",),
    state=Session,
    key=key,
    initial=initial,
    fold=fold,
    merge=merge,
    together={"jobs": "sum", "first_at": "min", "last_at": "max", "latest": "last_jobs"},
)
