"""What dies in a seed, sleeps, joins and leaves."""

from __future__ import annotations

import signal
import time

from streams.fold.failpoint import STEPS
from tests.kill.fleet import Fleet
from tests.kill.world import Hand


class Deaths:
    """Each is one action of the plan, and leaves a fleet behind that mends itself."""

    def __init__(self, fleet: Fleet) -> None:
        self._fleet, self._rnd = fleet, fleet.rnd
        self._servers, self._history = fleet.servers, fleet.history

    def _ready(self, hand: Hand) -> None:
        self._fleet.until(f"{hand.name} is ready", lambda: hand.ready)

    def fold(self) -> None:
        """Sometimes while it starts, mostly while it works; sometimes its disk goes too, or it dies within a commit."""
        rnd, hand = self._rnd, self._rnd.choice(self._fleet.folds)
        if rnd.random() < 0.8:
            self._ready(hand)
            self._fleet.pause(0.0, 2.0)
        hand.kill()
        self._history.add("kill -9 fold", hand.name)
        if rnd.random() < 0.2:
            hand.forget()
            self._history.add("disk gone", hand.name)
        failpoint = f"{rnd.choice(STEPS)}:{rnd.randrange(1, 12)}" if rnd.random() < 0.4 else ""
        hand.start(failpoint=failpoint)

    def sink(self) -> None:
        hand = self._rnd.choice(self._fleet.sinks)
        hand.kill()
        self._history.add("kill -9 sink", hand.name)
        hand.start()

    def guest(self) -> None:
        hand = self._fleet.fold(f"guest-{self._history.counts.get('join', 0)}")
        hand.start()
        self._fleet.until(f"{hand.name} is ready", lambda: hand.ready or not hand.alive)
        self._history.add("join", hand.name)
        self._fleet.pause(1.0, 4.0)
        if hand.alive:
            hand.send(signal.SIGTERM)
        code = hand.ended(60)
        self._history.add("leave", hand.name, code=code)
        hand.stop()

    def zombie(self) -> None:
        """Asleep for longer than the group waits for it; then it goes on where it was."""
        hand = self._rnd.choice(self._fleet.folds)
        self._ready(hand)
        hand.send(signal.SIGSTOP)
        self._fleet.asleep.add(hand)
        self._history.add("asleep", hand.name)
        time.sleep(self._fleet.size.zombie_seconds)
        hand.send(signal.SIGCONT)
        self._fleet.asleep.remove(hand)
        self._history.add("awake", hand.name)
        self._fleet.pause(1.0, 2.0)

    def broker(self) -> None:
        self._servers.kill_kafka()
        self._history.add("kill -9 broker")
        self._fleet.pause(0.5, 4.0)
        self._servers.start_kafka()
        self._history.add("broker again")

    def database(self) -> None:
        self._servers.kill_postgres()
        self._history.add("kill -9 postgres")
        self._fleet.pause(0.5, 3.0)
        self._servers.start_postgres()
        self._history.add("postgres again")
