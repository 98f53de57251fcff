"""python -m tests.hostile: the corpus, 20,000 requests by the API's description, then drawn values, for an hour.

Each part's seed is printed before it is played; `--first SEED` begins with it again. `--each 5` plays the corpus five
lines at a time instead, to find out which of them does the harm.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import sys
import time
from collections.abc import Sequence

from rillfold.embedded.state import Endpoints
from streams.log.kafka.log import KafkaLog
from streams.log.outgoing import to_outgoing
from tests.hostile.checks import rested, wrong
from tests.hostile.conftest import House
from tests.hostile.mallory.adapters import odd_adapters
from tests.hostile.mallory.generate import drawn, events, requests
from tests.hostile.mallory.openapi import explored
from tests.hostile.mallory.words import Line, groups, lines
from tests.hostile.play import play
from tests.support.servers import at_hand

PART = 1_000
"""So much is sent between two looks."""


def main() -> int:
    given = argparse.ArgumentParser(prog="python -m tests.hostile", description=__doc__)
    given.add_argument("--minutes", type=float, default=60)
    given.add_argument("--requests", type=int, default=20_000, help="by the API's description")
    given.add_argument("--first", type=int, help="the first seed; by chance if not given")
    given.add_argument("--each", type=int, default=0, help="the corpus alone, so many lines between two looks")
    given.add_argument("--groups", nargs="*", default=groups())
    chosen = given.parse_args()
    with at_hand() as servers:
        return asyncio.run(_held(servers, chosen))


async def _held(servers: Endpoints, chosen: argparse.Namespace) -> int:
    until = time.monotonic() + 60 * chosen.minutes
    seed = random.SystemRandom().randrange(1 << 30) if chosen.first is None else chosen.first
    async with KafkaLog(servers.bootstrap_servers) as log:
        hour = Hour(House(servers), log)
        try:
            for group in chosen.groups:
                await hour.corpus(group, chosen.each)
            if chosen.each:
                return hour.told()
            await hour.adapters()
            for n in range(-(-chosen.requests // PART)):
                await hour.description(seed + n, min(PART, chosen.requests - n * PART))
            while time.monotonic() < until:
                await hour.drawn(seed := seed + 1)
            return hour.told()
        finally:
            hour.house.close()


class Hour:
    def __init__(self, house: House, log: KafkaLog) -> None:
        self.house, self._log = house, log
        self._looks = self._harmed = self._sent = 0

    async def corpus(self, group: str, each: int) -> None:
        known = lines(group)
        for first in range(0, len(known), each or len(known)):
            await self._play(f"{group} {first}", known[first : first + (each or len(known))], bool(each))

    async def adapters(self) -> None:
        stage, _ = await self.house.at_hand()
        said, asked = odd_adapters(stage)
        await self._log.append([to_outgoing(event, stage.names) for event in said])
        await self._play("odd adapters", asked, False)

    async def drawn(self, seed: int) -> None:
        for what, strategy in (("events", events()), ("requests", requests())):
            say(f"drawing {what} of seed {seed}")
            await self._play(f"{what} of seed {seed}", await asyncio.to_thread(drawn, strategy, PART // 2, seed), False)

    async def description(self, seed: int, count: int) -> None:
        say(f"asking by the description, seed {seed}")
        stage, watch = await self.house.at_hand()
        statuses, bad = await explored(stage, watch, count, seed)
        stands = await rested(stage, self._log) + await wrong(stage, watch, self._log)
        stage.broken = "; ".join(stands)[:200]
        told = f"{statuses.total()} requests by the description, seed {seed}: {dict(statuses)}"
        self._looked(told, statuses.total(), [*bad, *stands])
        if stands:
            say(*stage.cast.last_words())

    async def _play(self, what: str, tried: Sequence[Line], named: bool) -> None:
        stage, watch = await self.house.at_hand()
        played = await play(stage, watch, self._log, tried)
        self._looked(f"{what}: {played}", played.sent, played.wrong)
        if played.wrong:
            say(*stage.cast.last_words())
        if played.wrong and named:
            say(*(f"    tried: {line.name}" for line in tried))

    def _looked(self, what: str, sent: int, bad: Sequence[str]) -> None:
        self._looks, self._harmed, self._sent = self._looks + 1, self._harmed + bool(bad), self._sent + sent
        say(what, *(f"  WRONG {each}" for each in bad))

    def told(self) -> int:
        say(f"{self._sent} sent; harm after {self._harmed} of {self._looks} looks")
        return 1 if self._harmed else 0


def say(*said: str) -> None:
    sys.stdout.write("".join(f"{time.strftime('%X')} {line}\n" for line in said))
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
