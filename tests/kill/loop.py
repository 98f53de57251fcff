"""One seed: traffic, a plan of what befalls the fleet, quiet, verdict."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable, Collection, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import psycopg

from schemas.topics import TopicNames
from streams.log.kafka import admin
from streams.log.kafka.log import KafkaLog
from streams.state.changelog import topic_of
from tests.kill.changelogs import Changelogs
from tests.kill.deaths import Deaths
from tests.kill.edges import Edges
from tests.kill.fleet import PREFIX, Fleet, Size
from tests.kill.injected import Injected
from tests.kill.losses import Losses
from tests.kill.owners import Owners
from tests.kill.releases import ALL, LAST, OLDER
from tests.kill.senders import Sender, World
from tests.kill.traffic import Traffic
from tests.kill.verdict import Judge
from tests.kill.world import History, Patience, Servers, TooLate, crowding, until_async
from tests.support.registry import local_registry

QUIET_SECONDS = 600.0
LONGEST_SESSION = 18.0
"""Seconds. Faust takes none that is longer than a request may last."""
Action = Callable[[], None]


class Share:
    """The traffic of one action: half of what is left whenever it asks for more, the rest when it is over."""

    def __init__(self, begun: int, of: int, allow: Callable[[float], None]) -> None:
        self._begun, self._of, self._allow = begun, of, allow
        self._left = 1.0

    def more(self) -> None:
        self._left /= 2
        self._allow((self._begun + 1 - self._left) / self._of)

    def all(self) -> None:
        self._allow((self._begun + 1) / self._of)


class Chaos:
    """What befalls a fleet, in an order by chance. Runs in a thread of its own: it waits, and the senders do not."""

    def __init__(self, fleet: Fleet, edges: Edges, losses: Losses, only: Collection[str] = ()) -> None:
        self._fleet, self._edges, self._losses, self._only = fleet, edges, losses, only
        self._deaths = Deaths(fleet)

    def plan(self) -> list[Action]:
        size, deaths, edges, losses = self._fleet.size, self._deaths, self._edges, self._losses
        times: list[tuple[Action, int]] = [
            (deaths.fold, size.kills),
            (deaths.sink, size.sink_kills),
            (deaths.guest, size.joins),
            (deaths.zombie, 1),
            (deaths.broker, 1),
            (deaths.database, 1),
            (edges.second_group, 1),
            (edges.deploy, 2),
            (edges.redrive, 1),
            (losses.retention, 1),
            (losses.loss, 1),
            (losses.truncation, 1),
            (edges.registry_learns, 1),
        ]
        if strange := set(self._only) - {action.__name__ for action, _ in times}:
            raise ValueError(f"no action is called {', '.join(sorted(strange))}")
        plan = [action for action, count in times for _ in range(count)]
        self._fleet.rnd.shuffle(plan)
        return [action for action in plan if not self._only or action.__name__ in self._only]

    def send_through(self, sender: Sender) -> None:
        self._fleet.one_more, self._fleet.nothing_comes = sender.one_more, lambda: sender.idle

    def run(self, allow: Callable[[float], None]) -> None:
        plan = self.plan()
        for n, action in enumerate(plan):
            own = Share(n, len(plan) + 1, allow)
            own.more()
            self._fleet.more = own.more
            self._fleet.pause(0.2, self._fleet.size.pause)
            action()
            own.all()
            self._fleet.mend()
        while self._fleet.release != LAST:
            self._edges.deploy()
        allow(1.0)


async def run_seed(
    seed: int, size: Size, folder: Path, history: History, only: Collection[str] = ()
) -> Mapping[str, Any]:
    """Raises AssertionError where something does not hold. Returns what was injected, and what was counted.

    `only` these actions, by their names.
    """
    names, servers, injected = TopicNames(PREFIX), Servers(folder), Injected()
    size = size._replace(session_timeout=min(size.session_timeout * crowding(), LONGEST_SESSION))
    with local_registry() as registry:
        changelogs = Changelogs(servers.bootstrap, PREFIX, folder / "changelogs")
        fleet = Fleet(random.Random(seed), size, servers, registry.url, folder, history, changelogs)
        edges = Edges(fleet, registry)
        try:
            await asyncio.to_thread(servers.start)
            async with KafkaLog(servers.bootstrap, session_timeout=6.0) as log:
                await admin.create(log, names)
                traffic = Traffic(seed, size.events, names, framed=0.02, greedy=True)
                sender = Sender(log, servers.bootstrap, traffic, size.events, history)
                world = World(log, names, history)
                fleet.beside = [
                    asyncio.create_task(world.answer()),
                    asyncio.create_task(changelogs.follow()),
                ]
                try:
                    await asyncio.to_thread(fleet.start)
                    await _storm(Chaos(fleet, edges, Losses(fleet, names, injected), only), sender)
                    history.add("storm over")
                    edges.registry_learns()
                    await _quiet(fleet, sender, world, log, names)
                    history.add("quiet")
                    await asyncio.to_thread(fleet.stop_folds)
                    fleet.still_beside()
                    await changelogs.read_to_their_ends(log, [topic_of(each, PREFIX) for each in (*ALL, OLDER)])
                finally:
                    for each in fleet.beside:
                        each.cancel()
                    await asyncio.wait(fleet.beside)
                owners = Owners(fleet.lives, fleet.broker_died, changelogs.history)
                judge = Judge(log, names, traffic.ledger, injected, seed, folder / "logs", changelogs, owners)
                return await _judged(judge, fleet)
        finally:
            changelogs.close()
            await asyncio.to_thread(fleet.end)
            await asyncio.to_thread(servers.stop)


async def _storm(chaos: Chaos, sender: Sender) -> None:
    """Traffic and deaths at once."""

    def allow(share: float) -> None:
        sender.allowed = max(share, sender.allowed)

    chaos.send_through(sender)

    async def ended() -> bool:
        return sending.done()

    sender.over = False
    sending = asyncio.create_task(sender.run())
    try:
        await asyncio.to_thread(chaos.run, allow)
        sender.over = True
        await until_async("all is sent", QUIET_SECONDS, ended)
        await sending
    finally:
        sending.cancel()


async def _quiet(fleet: Fleet, sender: Sender, world: World, log: KafkaLog, names: TopicNames) -> None:
    """Until every source is folded and in Postgres, every question answered, and nothing has come between two looks."""
    closed, patience, before, lag = False, Patience(QUIET_SECONDS), None, ["nobody was asked"]
    while not patience.over:
        await asyncio.sleep(1.0)
        fleet.mend()
        answered = await world.has_answered()  # asked first: a later answer is seen in the ends
        behind, (lag, ends) = lag, await _lag(log, names, fleet.servers.dsn)
        if lag != behind:
            patience.renew()
        if closed and answered and not lag and ends == before:
            return
        if not closed and ends == before:
            await sender.close()
            closed = True
        before = ends
    raise TooLate(f"quiet: not within {QUIET_SECONDS:.0f} s; behind: {lag[:8]}")


async def _lag(log: KafkaLog, names: TopicNames, dsn: str) -> tuple[list[str], dict[str, Mapping[int, int]]]:
    """What Postgres says of how far everything is, held against the log."""
    topics = {names.wire(topic) for projection in ALL for topic in projection.topics}
    ends = {topic: await log.ends(topic) for topic in sorted(topics | {names.wire("inference-request")})}
    try:
        async with await psycopg.AsyncConnection.connect(dsn, connect_timeout=5) as connection:
            cursor = await connection.execute("SELECT projection, topic, partition, next FROM rillfold.positions")
            at = {(name, topic, partition): next_ for name, topic, partition, next_ in await cursor.fetchall()}
    except psycopg.Error as error:
        return [f"Postgres: {error}"], ends
    wanted = [(projection.name, names.wire(topic)) for projection in ALL for topic in projection.topics]
    behind = [
        f"{name} {topic}/{partition} is at {at.get((name, topic, partition))} of {end}"
        for name, topic in wanted
        for partition, end in ends[topic].items()
        if at.get((name, topic, partition), 0) != end
    ]
    return behind, ends


async def _judged(judge: Judge, fleet: Fleet) -> Mapping[str, Any]:
    began, said = time.monotonic(), fleet.logs()
    await judge.read(said)
    failed = []
    for check in (
        judge.check_the_log,
        partial(judge.check_changelogs, [hand.tables() for hand in (*fleet.folds, *fleet.guests)]),
        partial(judge.check_postgres, fleet.servers.dsn),
        judge.check_letters,
        judge.check_jobs,
        judge.check_what_happened,
    ):
        try:
            held = check()
            if held is not None:
                await held
        except AssertionError as error:
            failed.append(str(error))
    if failed:
        raise AssertionError("\n".join(failed))
    seconds = round(time.monotonic() - began, 1)
    return {**fleet.history.counts, **judge.counts, "judged in s": seconds}
