"""Who works in a seed, and the supervisor that starts again whoever is dead."""

from __future__ import annotations

import asyncio
import json
import random
import re
import signal
import time
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from projections.projection import Projection
from streams.log.kafka.log import KafkaLog
from tests.kill.changelogs import Changelogs
from tests.kill.lives import Life
from tests.kill.releases import LAST, RELEASES, command
from tests.kill.world import KILLED, Hand, History, Servers, until

READY_SECONDS = 240.0
PREFIX = "kill-"
T = TypeVar("T")
ENDINGS = {KILLED, 1, 70}
"""Killed, turned away at the start, or it could not go on: as docs/operations.md has it."""
OURS = re.compile(r"rillfold: |(schemas|streams|projections|rillfold)[\w.]*\.errors\.\w+: |.* Stalled for .* Exit 70\.")
"""The last line of who ended by itself. A bug's own name would be hidden among the restarts."""
ROOT = Path(__file__).parents[2]


class Size(NamedTuple):
    """How much of everything."""

    events: int
    kills: int
    sink_kills: int
    joins: int
    zombie_seconds: float
    session_timeout: float
    pause: float


LONG = Size(300_000, 20, 4, 3, 20.0, 15.0, 3.0)
SHORT = Size(20_000, 2, 1, 1, 8.0, 6.0, 1.5)


class Fleet:
    """Three workers that fold, two that follow. Waits in the thread of whoever asks it."""

    def __init__(
        self,
        rnd: random.Random,
        size: Size,
        servers: Servers,
        registry: str,
        folder: Path,
        history: History,
        changelogs: Changelogs,
    ) -> None:
        self.changelogs = changelogs
        self.rnd, self.size, self.servers, self.history = rnd, size, servers, history
        self._folder, self._releases = folder, list(RELEASES)
        self.environment = {
            "PYTHONPATH": str(ROOT),
            "RILLFOLD_PROVIDER": "external",
            "RILLFOLD_BOOTSTRAP_SERVERS": servers.bootstrap,
            "RILLFOLD_POSTGRES_DSN": servers.dsn,
            "RILLFOLD_TOPIC_PREFIX": PREFIX,
            "RILLFOLD_POSTGRES_SCHEMA": "rillfold",
            "RILLFOLD_SCHEMA_REGISTRY": registry,
            "RILLFOLD_SESSION_TIMEOUT": str(size.session_timeout),
        }
        self.lives: dict[str, Life] = {}
        self.folds = [self.fold(f"fold-{n}") for n in range(3)]
        self.sinks = [self.hand(f"sink-{n}", "worker", "sink") for n in range(2)]
        self.guests: list[Hand] = []
        """Whoever else has folded, and keeps what it has on its disk."""
        self.asleep: set[Hand] = set()
        self.more: Callable[[], None] = lambda: None
        """Lets more traffic come."""
        self.one_more: Callable[[], None] = lambda: None
        """Lets a burst come."""
        self.nothing_comes: Callable[[], bool] = lambda: True
        self.beside: list[asyncio.Task[None]] = []
        """Who is at work as long as the fleet is: without them no seed can end well."""
        self._accepted: dict[str, int] = {}
        self.broker_died: list[float] = []

    @property
    def release(self) -> str:
        return self._releases[0]

    @property
    def projections(self) -> tuple[Projection[Any], ...]:
        return RELEASES[self.release]

    def hand(self, name: str, *words: str) -> Hand:
        hand = Hand(name, words, self._folder, self.environment)
        self.lives[name] = hand.life
        return hand

    def fold(self, name: str) -> Hand:
        hand = self.hand(name)
        hand.becomes(*command(self.release, name))
        return hand

    def next_release(self) -> None:
        """Whoever starts from now on is of it."""
        del self._releases[0]
        for hand in self.folds:
            hand.becomes(*command(self.release, hand.name))

    def accept_loss(self, offers: Mapping[str, int]) -> None:
        """Whoever starts from now on has it, beside what was accepted before."""
        self._accepted |= offers
        for environment in (self.environment, *(hand.environment for hand in self.folds)):
            environment["RILLFOLD_ACCEPT_LOSS"] = json.dumps(self._accepted)

    def start(self) -> None:
        for hand in (*self.folds, *self.sinks):
            hand.start()
        self.until("all workers are ready", lambda: all(hand.ready for hand in (*self.folds, *self.sinks)))

    def mend(self) -> None:
        """As a supervisor would: whoever is dead is started again, and why it died is written down."""
        self.still_beside()
        for hand in (*self.folds, *self.sinks):
            if hand.alive or hand in self.asleep:
                continue
            code = hand.code()
            what = "died at a failpoint" if code == KILLED else f"exit {code}"
            last = hand.said().strip().splitlines()[-1:] if code != KILLED else []
            named = code == KILLED or OURS.match("".join(last))
            assert named and code in ENDINGS, f"{hand.name} has ended with {code}: {hand.said()[-2000:]}"
            self.history.add(what, hand.name, said=last)
            hand.start()

    def stop_folds(self) -> None:
        for hand in self.folds:
            if hand.alive:
                hand.send(signal.SIGTERM)
        for hand in self.folds:
            self.history.add("stopped", hand.name, code=hand.ended(60))

    def restart(self, hand: Hand) -> None:
        """In order, as a deploy does it."""
        if hand.alive:
            hand.send(signal.SIGTERM)
        self.history.add("restart", hand.name, code=hand.ended(60))
        hand.start()

    def end(self) -> None:
        if self.release != LAST:
            self.history.add("never came to the last release")
        for hand in (*self.folds, *self.sinks, *self.guests):
            hand.stop()

    def logs(self) -> str:
        return "\n".join(hand.log() for hand in (*self.folds, *self.guests))

    def until(self, what: str, done: Callable[[], bool]) -> None:
        def mended() -> bool:
            self.mend()
            return done()

        until(what, READY_SECONDS, mended)

    def still_beside(self) -> None:
        """Raises what has ended one of them."""
        for each in self.beside:
            if each.done():
                each.result()
                raise AssertionError(f"{each} has ended")

    def asked(self, question: Callable[[KafkaLog], Awaitable[T]]) -> T:
        async def ask() -> T:
            async with KafkaLog(self.servers.bootstrap) as log:
                return await question(log)

        return asyncio.run(ask())

    def pause(self, least: float, most: float) -> None:
        time.sleep(self.rnd.uniform(least, most))
