"""Who else folds into our changelogs: another group with members, of which two would shut each other out for ever."""

import asyncio
import logging
import time
from collections.abc import Collection
from typing import Any, NamedTuple

from aiokafka import errors as kafka
from aiokafka.admin import AIOKafkaAdminClient

from projections.projection import OTHER_GROUPS
from schemas.errors import Retry
from streams.errors import RETRY_SECONDS, FoldedElsewhere
from streams.log.kafka.access import KafkaAccess
from streams.log.kafka.client import close_client, start_client
from streams.log.kafka.refused import by_name

log = logging.getLogger(__name__)
ANSWER_SECONDS = 10.0
FAUST = frozenset({"faust", ""})
"""The protocol of a folding group; none while its members find together."""


def group_of(scope: str, only: Collection[str]) -> str:
    """The name of a folding group. `scope` is that of the one that folds every projection."""
    return "-".join([scope, *sorted(only)])


class Rivals(NamedTuple):
    """Of `group`, which folds these projections. Each group says by its name what it folds: see `group_of`."""

    group: str
    scope: str
    projections: Collection[str]
    access: KafkaAccess

    def may_be(self, group: str) -> bool:
        if group == self.group:
            return False
        if not group.startswith(f"{self.scope}-"):
            return group == self.scope
        folds = group.removeprefix(f"{self.scope}-").split("-")
        return not OTHER_GROUPS.intersection(folds) and not set(self.projections).isdisjoint(folds)

    async def at_work(self) -> list[str]:
        client = self.access.client(AIOKafkaAdminClient)
        async with by_name(self.access, "Describe"):
            await start_client(client)
        try:
            named = [group for group, *_ in await client.list_consumer_groups() if self.may_be(group)]
            # One at a time: aiokafka reads the answer of this version by the schema of an earlier one, which has less.
            answers = [answer for group in named for answer in await client.describe_consumer_groups([group])]
        finally:
            await close_client(client)
        found: list[tuple[Any, ...]] = [described for answer in answers for described in answer.groups]
        return sorted(group for _, group, _, _, protocol, members, *_ in found if members and protocol in FAUST)

    async def gone(self, patience: float) -> None:
        """Before this group is joined. Members that have ended are missed by the broker only after a while."""
        until = time.monotonic() + patience
        while others := await self._patiently(until):
            if time.monotonic() >= until:
                raise FoldedElsewhere(self.group, others, self.projections)
            log.warning("Group %s folds what %s is to fold: waiting for its members to end", others[0], self.group)
            await asyncio.sleep(RETRY_SECONDS)

    async def yield_to_the_first(self) -> None:
        """Where two groups began at one moment, each seen by the other: one of them goes on, whichever claims first."""
        others = await self._patiently(time.monotonic() + ANSWER_SECONDS)
        if first := [group for group in others if group < self.group]:
            raise FoldedElsewhere(self.group, first, self.projections)

    async def _patiently(self, until: float) -> list[str]:
        """A coordinator that has just come up does not answer yet."""
        while True:
            try:
                return await self.at_work()
            except (kafka.KafkaError, Retry) as error:
                lasts = isinstance(error, kafka.KafkaError) and not error.retriable
                if lasts or time.monotonic() >= until:
                    raise
                await asyncio.sleep(RETRY_SECONDS)
