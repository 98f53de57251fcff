"""Companies: one row each."""

import msgspec

from projections.projection import Projection
from schemas.company import CompanyRegistered
from schemas.envelope import Event


class Company(msgspec.Struct, frozen=True, kw_only=True):
    """A registration again only changes the name."""

    company: str
    name: str = ""
    registered_at: int = 0
    """Microseconds; the first registration's."""
    updated_by: str = ""
    """Id of the event that last changed the row."""


def key(event: Event) -> str | None:
    return event.company if isinstance(event, CompanyRegistered) else None


def initial(row: str) -> Company:
    return Company(company=row)


def fold(state: Company, event: Event) -> Company:
    assert isinstance(event, CompanyRegistered)
    if event.id == state.updated_by:
        return state
    return Company(
        company=state.company,
        name=event.name,
        registered_at=state.registered_at or event.time,
        updated_by=event.id,
    )


COMPANIES = Projection(
    name="companies", version=1, topics=("company-data",), state=Company, key=key, initial=initial, fold=fold
)
