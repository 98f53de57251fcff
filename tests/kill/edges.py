"""What happens to a fleet beside deaths: another group, a release, a redrive, a registry that learns."""

from __future__ import annotations

import json
import signal

from projections.datasets import DATASETS
from schemas.codec.catalog import catalog
from tests.kill.fleet import Fleet
from tests.kill.traffic import LEARNED
from tests.kill.world import Hand
from tests.support.registry import LocalRegistry


class Edges:
    """Each is one action of the plan, and notes what the judge must know of it."""

    def __init__(self, fleet: Fleet, registry: LocalRegistry) -> None:
        self._fleet, self._registry = fleet, registry
        self._rnd, self._history = fleet.rnd, fleet.history

    def second_group(self) -> None:
        """One that folds datasets, first beside the fleet and then in its stead; the fleet wakes up beside it."""
        fleet, rnd = self._fleet, self._rnd
        second = fleet.hand("second", "worker", "fold", "--name", "second", "--only", DATASETS.name)
        fleet.guests.append(second)
        second.start()
        fleet.pause(0.5, 3.0)
        fleet.more()
        fleet.pause(0.0, 0.3)
        fleet.asleep.update(fleet.folds)
        for hand in fleet.folds:
            hand.sleep()
        self._history.add("fleet asleep")
        fleet.until("the second group folds", lambda: self._at_work(second))
        self._history.add("second group")
        fleet.more()
        fleet.pause(0.5, 2.0)
        ends = [lambda: self._end(second), self._wake]
        rnd.shuffle(ends)
        for end in ends:
            end()
            fleet.pause(0.0, 2.0)

    def _at_work(self, second: Hand) -> bool:
        """It ends where it finds the fleet at work for too long."""
        if not second.alive:
            self._history.add("second group turned away", code=second.code())
            second.start()
        return second.ready

    def _wake(self) -> None:
        for hand in self._fleet.folds:
            hand.wake()
        self._fleet.asleep.clear()
        self._history.add("fleet awake")

    def _end(self, second: Hand) -> None:
        number = self._rnd.choice((signal.SIGTERM, signal.SIGKILL))
        if second.alive:
            second.send(number)
        self._history.add("second group ends", code=second.ended(60))

    def deploy(self) -> None:
        """Worker by worker, each sooner than the group misses it. The first adds a projection, the second bumps one."""
        self._fleet.next_release()
        self._history.add("deploy", self._fleet.release)
        for hand in self._rnd.sample(self._fleet.folds, len(self._fleet.folds)):
            self._fleet.restart(hand)
            self._fleet.pause(0.0, 1.5)

    def redrive(self) -> None:
        """All letters, while all that folds dies; sometimes two at once, and one killed; and right away once more."""
        both = [self._redriving(n) for n in range(self._rnd.choice((1, 2, 2)))]
        self._fleet.pause(0.0, 1.0)
        for hand in self._fleet.folds:
            hand.kill()
            self._history.add("kill -9 fold", hand.name, during="redrive")
        if self._rnd.random() < 0.3:
            self._fleet.pause(0.0, 2.0)
            both[0].kill()
        for each in both:
            self._redriven(each)
        self._redriven(self._redriving(len(both)))

    def _redriving(self, n: int) -> Hand:
        gone = ["--gone"] if self._rnd.random() < 0.3 else []
        name = f"redrive-{self._history.counts.get('redrive', 0)}-{n}"
        hand = self._fleet.hand(name, "dlq", "redrive", "--yes", "--json", *gone)
        hand.start()
        return hand

    def _redriven(self, hand: Hand) -> None:
        self._history.add("redrive", hand.name, code=hand.ended(120), said=hand.said().splitlines()[:1])

    def registry_learns(self) -> None:
        """What was refused until now for its schema is refused; what comes from now on is an event."""
        if not self._registry.schemas:
            for cls in LEARNED.values():
                self._registry.add(json.dumps(catalog().by_class[cls].source))
            self._history.add("registry learns")
