"""One projection in two versions, and a worker of either, or of a release: `... -m tests.support.two_versions 2 a`."""

from __future__ import annotations

import sys
from contextlib import AbstractContextManager
from dataclasses import replace

import msgspec

from projections.companies import COMPANIES, Company
from projections.company_tools import COMPANY_TOOLS
from projections.datasets import DATASETS
from rillfold.settings import from_env
from rillfold.workers.watched import watched
from schemas.company import CompanyRegistered
from schemas.envelope import Event
from streams.log.kafka.access import KafkaAccess
from streams.owner.app import Worker, run
from streams.owner.glance import Glance

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


RELEASES = {
    "1": [VERSIONS[1]],
    "2": [VERSIONS[2]],
    "first": [VERSIONS[1], COMPANY_TOOLS],
    "next": [VERSIONS[2], COMPANY_TOOLS, DATASETS],
}
"""What a worker folds. `next` bumps one, keeps one, and adds one."""


def main(release: str, name: str = "a") -> None:
    settings = from_env()
    assert settings.bootstrap_servers is not None
    here = settings.data_dir / "workers" / name
    app_id = f"{settings.topic_prefix}rillfold"
    timeout = settings.session_timeout
    worker = Worker(
        KafkaAccess(settings.bootstrap_servers), app_id, name, here, settings.topic_names(), session_timeout=timeout
    )

    def beside(glance: Glance) -> AbstractContextManager[object]:
        return watched(settings, name, worker.access, glance.sight, glance.counts, glance.row)

    run(worker, RELEASES[release], beside=beside)


if __name__ == "__main__":
    main(*sys.argv[1:])
