"""`rillfold worker fold`: the event log into projections. Faust has the loop and the signals here."""

import logging
from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import Any

import click

from processors.saga import ACTING_JOBS
from projections.catalog import chosen
from projections.projection import Projection
from rillfold.app.installed import installed
from rillfold.event_log import learn, reached
from rillfold.settings import Settings
from rillfold.workers.run import command
from rillfold.workers.watched import watched
from streams.owner.app import FOLD_GROUP, Worker, run
from streams.owner.glance import Glance
from streams.owner.rivals import group_of


def _fold(settings: Settings, name: str, only: tuple[str, ...], log_level: str) -> None:
    """Fold the event log into projections, with changelogs and local state."""
    projections = installed(settings).projections
    group = group_of(f"{settings.topic_prefix}{FOLD_GROUP}", only)
    fold_as(settings, name, group, chosen(only, {**projections, ACTING_JOBS.name: ACTING_JOBS}), log_level)


def fold_as(
    settings: Settings, name: str, group: str, projections: Sequence[Projection[Any]], log_level: str = "WARNING"
) -> None:
    """As a member of a group that folds these."""
    logging.disable(logging.DEBUG)
    described = Worker(
        access=reached(settings),
        app_id=group,
        name=name,
        data_dir=settings.data_dir / "workers" / name,
        names=settings.topic_names(),
        failpoint=settings.failpoint,
        learn=learn(settings),
        session_timeout=settings.session_timeout,
        accepted=settings.accept_loss,
    )

    def beside(glance: Glance) -> AbstractContextManager[object]:
        return watched(settings, name, described.access, glance.sight, glance.counts, glance.row)

    run(described, projections, log_level, beside)


fold = command(
    "fold",
    _fold,
    click.Option(["--only"], multiple=True, help="Fold only these projections (in a consumer group of their own)."),
    click.Option(["--log-level"], default="WARNING", show_default=True),
)
