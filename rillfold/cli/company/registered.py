"""Whether a company that a command names is a known one: doubted here alone, and only where it matters.

Nobody has to register before events are sent, so that an unknown name is no error. It is told where nothing was found
under it; and where something begins in it, if a known one is so close that it may be meant.
"""

import asyncio
from collections.abc import Collection
from contextlib import suppress

import click

from projections.companies import COMPANIES
from rillfold.cli.terminal.plain import plain
from rillfold.event_log import read_model
from rillfold.profiles import of_the_settings
from rillfold.settings import Settings, from_env
from schemas.errors import RillfoldError
from schemas.near import meant

MOST = 2_000
"""Companies that a name is compared with."""
SECONDS = 2.0


def say_doubt(company: str, known: Collection[str], nothing: bool) -> None:
    """`nothing`: was found under it."""
    guess = meant(company, known)
    if company not in known and (guess or nothing):
        told = f"no company {company!r} is registered, or this key may not see it.{guess}"
        click.echo(plain(f"rillfold: {told} `rillfold company list` names those that are."), err=True)


def doubt_in_log(company: str | None, nothing: bool) -> None:
    """For what works on the log. Where there is no read model to ask, nothing is said."""
    if company is not None:
        with suppress(RillfoldError):
            say_doubt(company, asyncio.run(_known(of_the_settings(from_env()), company)), nothing)


async def _known(settings: Settings, company: str) -> Collection[str]:
    async with read_model(settings, SECONDS) as reads:
        if await reads.row(COMPANIES, company) is not None:
            return {company}
        return {row.key for row in await reads.rows(COMPANIES, None, None, MOST)}
