"""One projection in two versions, and a worker of either: `python -m tests.support.two_versions 2`."""

from __future__ import annotations

import sys
from dataclasses import replace

import msgspec

from projections.companies import COMPANIES, Company
from rillfold.settings import from_env
from schemas.company import CompanyRegistered
from schemas.envelope import Event
from streams.owner.app import Worker, run

UNLOVED = "no version before the second takes this name"


class Named(msgspec.Struct, frozen=True, kw_only=True):
    """Other fields than version 1 has: neither can read the other's rows."""

    company: str
    names: tuple[str, ...]


def choosy(state: Company, event: Event) -> Company:
    assert isinstance(event, CompanyRegistered)
    if event.name == UNLOVED:
        raise ValueError(event.name)
    return COMPANIES.fold(state, event)


def every_name(state: Named, event: Event) -> Named:
    assert isinstance(event, CompanyRegistered)
    return Named(company=state.company, names=tuple(sorted({*state.names, event.name})))


VERSIONS = {
    1: replace(COMPANIES, fold=choosy),
    2: replace(COMPANIES, version=2, state=Named, initial=lambda row: Named(company=row, names=()), fold=every_name),
}


def main(version: int) -> None:
    settings = from_env()
    assert settings.bootstrap_servers is not None
    here = settings.data_dir / "workers" / "a"
    app_id = f"{settings.topic_prefix}rillfold"
    worker = Worker(settings.bootstrap_servers, app_id, "a", here, settings.topic_names(), session_timeout=3.0)
    run(worker, [VERSIONS[version]])


if __name__ == "__main__":
    main(int(sys.argv[1]))
