"""What dies in a seed, sleeps, joins and leaves."""

from __future__ import annotations

import signal
import time

from streams.fold.failpoint import STEPS
from streams.state.changelog import topic_of
from tests.kill.fleet import PREFIX, Fleet
from tests.kill.injected import Place
from tests.kill.world import Hand, Patience
from tests.support.worker import asleep


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
        """Asleep within a commit, until others have claimed all that was its own: then its batch must be refused."""
        fleet, hand = self._fleet, self._rnd.choice(self._fleet.folds)
        fleet.asleep.add(hand)
        failpoint = f"published:{self._rnd.randrange(3, 10)}:SIGSTOP"

        lately = Patience(1.0)

        def sleeps() -> bool:
            if not hand.alive:
                hand.start(failpoint=failpoint)
            elif hand.ready and fleet.nothing_comes() and lately.over:
                # By now it has its share again: what came before others have folded.
                lately.renew()
                fleet.one_more()
            return asleep(hand)

        hand.kill()
        fleet.until(f"{hand.name} sleeps within a commit", sleeps)
        hand.sleep()
        self._read_claims()
        owned = self._owned(hand)
        self._history.add("asleep", hand.name, owns=sorted(owned))
        time.sleep(fleet.size.zombie_seconds)
        fleet.until(f"others claim what {hand.name} had", lambda: not self._owned(hand) & owned)
        hand.wake()
        code, refused = hand.ended(60), "Another worker has claimed" in hand.said()
        self._history.add("awake", hand.name, code=code, refused=refused)
        assert (code, refused) == (70, True), f"{hand.name} woke within a commit, and was not refused:\n{hand.said()}"
        self._history.add("a late batch refused", hand.name)
        fleet.asleep.remove(hand)

    def _read_claims(self) -> None:
        """Whoever follows the changelogs is a moment behind."""
        changelogs = self._fleet.changelogs
        own = [topic_of(each, PREFIX) for each in self._fleet.projections]
        ends = self._fleet.asked(lambda log: changelogs.ends(log, own))
        self._fleet.until("changelogs are read", lambda: changelogs.reach(ends))

    def _owned(self, hand: Hand) -> set[Place]:
        """Changelogs of its own release: those of an older one nobody claims any more."""
        here = {topic_of(each, PREFIX) for each in self._fleet.projections}
        owners = dict(self._fleet.changelogs.owners)
        return {place for place, owner in owners.items() if owner == hand.name and place[0] in here}

    def broker(self) -> None:
        self._fleet.broker_died.append(time.time())
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
