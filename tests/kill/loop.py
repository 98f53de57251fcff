"""One seed: traffic, deaths, quiet, verdict."""

from __future__ import annotations

import asyncio
import random
import signal
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import psycopg

from schemas.topics import TopicNames
from streams.fold.failpoint import STEPS
from streams.log.kafka import admin
from streams.log.kafka.log import KafkaLog
from tests.kill.senders import Sender, answer_jobs
from tests.kill.traffic import Traffic
from tests.kill.verdict import ALL, Judge
from tests.kill.world import KILLED, Hand, History, Servers, TooLate, until

QUIET_SECONDS = 600.0
READY_SECONDS = 240.0
PREFIX = "kill-"


class Size(NamedTuple):
    """How much of everything."""

    events: int
    kills: int
    sink_kills: int
    joins: int
    zombie_seconds: float
    session_timeout: float
    servers: bool


LONG = Size(300_000, 20, 4, 3, 20.0, 15.0, True)
SHORT = Size(20_000, 4, 1, 1, 8.0, 6.0, True)


class Chaos:
    """Who works, and who dies when. Runs in a thread of its own: it waits, and the senders do not."""

    def __init__(self, seed: int, size: Size, servers: Servers, folder: Path, history: History) -> None:
        self._rnd, self._size, self._servers = random.Random(seed), size, servers
        self._folder, self._history = folder, history
        self._environment = {
            "RILLFOLD_PROVIDER": "external",
            "RILLFOLD_BOOTSTRAP_SERVERS": servers.bootstrap,
            "RILLFOLD_POSTGRES_DSN": servers.dsn,
            "RILLFOLD_TOPIC_PREFIX": PREFIX,
            "RILLFOLD_POSTGRES_SCHEMA": "rillfold",
            "RILLFOLD_SESSION_TIMEOUT": str(size.session_timeout),
        }
        self.folds = [self._fold(f"fold-{n}") for n in range(3)]
        self.sinks = [Hand(f"sink-{n}", ("worker", "sink"), folder, self._environment) for n in range(2)]
        self._asleep: Hand | None = None

    def _fold(self, name: str) -> Hand:
        return Hand(name, ("worker", "fold", "--name", name), self._folder, self._environment)

    def start(self) -> None:
        for hand in (*self.folds, *self.sinks):
            hand.start()
        self._until("all workers are ready", lambda: all(hand.ready for hand in (*self.folds, *self.sinks)))

    def plan(self) -> list[Callable[[], None]]:
        size = self._size
        plan = (
            [self._kill_fold] * size.kills + [self._kill_sink] * size.sink_kills + [self._join_and_leave] * size.joins
        )
        plan += [self._zombie]
        plan += [self._kill_broker, self._kill_database] if size.servers else []
        self._rnd.shuffle(plan)
        return plan

    def run(self, allow: Callable[[float], None]) -> None:
        plan = self.plan()
        for n, action in enumerate(plan, start=1):
            allow(n / (len(plan) + 1))
            self._pause(0.2, 3.0)
            action()
            self.mend()
        allow(1.0)

    def mend(self) -> None:
        """As a supervisor would: whoever is dead is started again, and why it died is written down."""
        for hand in (*self.folds, *self.sinks):
            if hand.alive or hand is self._asleep:
                continue
            code = hand.code()
            what = "died at a failpoint" if code == KILLED else f"exit {code}"
            last = hand.said().strip().splitlines()[-1:] if code != KILLED else []
            self._history.add(what, hand.name, said=last)
            hand.start()

    def _kill_fold(self) -> None:
        """Sometimes while it starts, mostly while it works; sometimes its disk goes too, or it dies within a commit."""
        rnd, hand = self._rnd, self._rnd.choice(self.folds)
        if rnd.random() < 0.8:
            self._until(f"{hand.name} is ready", lambda: hand.ready)
            self._pause(0.0, 2.0)
        hand.kill()
        self._history.add("kill -9 fold", hand.name)
        if rnd.random() < 0.2:
            hand.forget()
            self._history.add("disk gone", hand.name)
        failpoint = f"{rnd.choice(STEPS)}:{rnd.randrange(1, 12)}" if rnd.random() < 0.4 else ""
        hand.start(failpoint=failpoint)

    def _kill_sink(self) -> None:
        hand = self._rnd.choice(self.sinks)
        hand.kill()
        self._history.add("kill -9 sink", hand.name)
        hand.start()

    def _join_and_leave(self) -> None:
        hand = self._fold(f"guest-{self._history.counts.get('join', 0)}")
        hand.start()
        self._until(f"{hand.name} is ready", lambda: hand.ready or not hand.alive)
        self._history.add("join", hand.name)
        self._pause(1.0, 4.0)
        if hand.alive:
            hand.send(signal.SIGTERM)
        code = hand.ended(60)
        self._history.add("leave", hand.name, code=code)
        hand.stop()

    def _zombie(self) -> None:
        """Asleep for longer than the group waits for it; then it goes on where it was."""
        hand = self._rnd.choice(self.folds)
        self._until(f"{hand.name} is ready", lambda: hand.ready)
        hand.send(signal.SIGSTOP)
        self._asleep = hand
        self._history.add("asleep", hand.name)
        self._sleep(self._size.zombie_seconds)
        hand.send(signal.SIGCONT)
        self._asleep = None
        self._history.add("awake", hand.name)
        self._pause(1.0, 2.0)

    def _kill_broker(self) -> None:
        self._servers.kill_kafka()
        self._history.add("kill -9 broker")
        self._pause(0.5, 4.0)
        self._servers.start_kafka()
        self._history.add("broker again")

    def _kill_database(self) -> None:
        self._servers.kill_postgres()
        self._history.add("kill -9 postgres")
        self._pause(0.5, 3.0)
        self._servers.start_postgres()
        self._history.add("postgres again")

    def stop_folds(self) -> None:
        for hand in self.folds:
            if hand.alive:
                hand.send(signal.SIGTERM)
        for hand in self.folds:
            self._history.add("stopped", hand.name, code=hand.ended(60))

    def end(self) -> None:
        for hand in (*self.folds, *self.sinks):
            hand.stop()

    def _until(self, what: str, done: Callable[[], bool]) -> None:
        def mended() -> bool:
            self.mend()
            return done()

        until(what, READY_SECONDS, mended)

    def _pause(self, least: float, most: float) -> None:
        self._sleep(self._rnd.uniform(least, most))

    def _sleep(self, seconds: float) -> None:
        time.sleep(seconds)


async def run_seed(seed: int, size: Size, folder: Path, history: History) -> Mapping[str, Any]:
    """Raises AssertionError where something does not hold. Returns what was injected, and what was counted."""
    names, servers = TopicNames(PREFIX), Servers(folder)
    chaos = Chaos(seed, size, servers, folder, history)
    try:
        await asyncio.to_thread(servers.start)
        async with KafkaLog(servers.bootstrap, session_timeout=6.0) as log:
            await admin.create(log, names)
            traffic = Traffic(seed, size.events, names)
            answering = asyncio.create_task(answer_jobs(log, names, history))
            try:
                await asyncio.to_thread(chaos.start)
                sender = Sender(log, servers.bootstrap, traffic, size.events, history)
                await _storm(chaos, sender)
                history.add("storm over")
                await _quiet(chaos, sender, log, names, servers)
                history.add("quiet")
            finally:
                answering.cancel()
                await asyncio.wait([answering])
            await asyncio.to_thread(chaos.stop_folds)
            return await _judged(Judge(log, names, traffic.ledger, seed, folder / "logs"), chaos, servers, history)
    finally:
        await asyncio.to_thread(chaos.end)
        await asyncio.to_thread(servers.stop)


async def _storm(chaos: Chaos, sender: Sender) -> None:
    """Traffic and deaths at once."""

    def allow(share: float) -> None:
        sender.allowed = share

    sending = asyncio.create_task(sender.run())
    try:
        await asyncio.to_thread(chaos.run, allow)
        async with asyncio.timeout(QUIET_SECONDS):
            await sending
    finally:
        sending.cancel()


async def _quiet(chaos: Chaos, sender: Sender, log: KafkaLog, names: TopicNames, servers: Servers) -> None:
    """Until every source is folded and in Postgres, and nothing has come between two looks."""
    closed, stop, before, lag = False, time.monotonic() + QUIET_SECONDS, None, ["nobody was asked"]
    while time.monotonic() < stop:
        await asyncio.sleep(1.0)
        chaos.mend()
        lag, ends = await _lag(log, names, servers.dsn)
        if closed and not lag and ends == before:
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
        if at.get((name, topic, partition), 0) < end
    ]
    return behind, ends


async def _judged(judge: Judge, chaos: Chaos, servers: Servers, history: History) -> Mapping[str, Any]:
    began = time.monotonic()
    await judge.read()
    judge.check_the_log()
    await judge.check_changelogs([hand.tables() for hand in chaos.folds])
    await judge.check_postgres(servers.dsn)
    await judge.check_dead_letters()
    judge.check_jobs()
    refused = any("Another worker has claimed" in hand.log() for hand in chaos.folds)
    seconds = round(time.monotonic() - began, 1)
    return {**history.counts, **judge.counts, "judged in s": seconds, "a late batch was refused": refused}
