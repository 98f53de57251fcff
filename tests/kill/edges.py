"""What happens to a fleet beside deaths: another group, a release, a redrive, a log that loses its beginning."""

from __future__ import annotations

import asyncio
import json
import re
import signal
import time
from collections.abc import Awaitable, Callable, Iterable
from typing import TypeVar

from projections.datasets import DATASETS
from schemas.codec.catalog import catalog
from schemas.topics import TopicNames
from streams.log.kafka.log import KafkaLog
from tests.kill.fleet import Fleet
from tests.kill.injected import Injected, Place, delete, delete_unfolded, markers
from tests.kill.traffic import LEARNED
from tests.kill.world import Hand
from tests.support.registry import LocalRegistry

T = TypeVar("T")
BOUNDED = ("company-data", "training-request", "adapter-ready")
"""Topics whose folded beginning goes. A job needs its own from the start, under a next version too."""
OFFER = re.compile(r"RILLFOLD_ACCEPT_LOSS='(\{.*?\})'")
"""As a worker spells what an operator may say; an offer without a number is none."""


class Edges:
    """Each is one action of the plan, and notes what the judge must know of it."""

    def __init__(self, fleet: Fleet, names: TopicNames, registry: LocalRegistry, injected: Injected) -> None:
        self._fleet, self._names, self._registry, self._injected = fleet, names, registry, injected
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

    def retention(self) -> None:
        """Of one partition all goes that is folded by all, or a part of it: nothing is lost."""
        places = [(self._names.wire(topic), partition) for topic in BOUNDED for partition in range(4)]
        self._rnd.shuffle(places)
        share = self._rnd.choice((0.5, 1.0))
        self._fleet.until("all fold some partition", lambda: self._asked(lambda log: self._retain(log, places, share)))

    async def _retain(self, log: KafkaLog, places: Iterable[Place], share: float) -> bool:
        for place in places:
            found = await markers(log, place, self._fleet.projections, self._names)
            begun = [marker for marker in found.values() if marker is not None]
            first = (await log.starts(place[0]))[place[1]]
            if len(begun) == len(found) and (stop := int(min(begun) * share)) > first:
                self._injected.begun(place, stop, found, self._names)
                await delete(log, self._fleet.servers, place, stop, self._injected)
                self._history.add("retention", f"{place[0]}/{place[1]}", stop=stop)
                return True
        return False

    def loss(self) -> None:
        """Deleted before it was folded. An operator says so once a worker has named it, in the worker's words."""
        fleet, place = self._fleet, (self._names.wire("company-data"), self._rnd.randrange(4))
        fleet.until("a partition is folded", lambda: bool(self._begun(place)))
        fleet.asleep.update(fleet.folds)
        for hand in fleet.folds:
            hand.kill()
        begun = self._begun(place)
        while begun != (begun := self._begun(place)):
            time.sleep(0.5)
        fleet.more()
        share, servers = self._rnd.random(), fleet.servers
        stop = self._asked(lambda log: delete_unfolded(log, servers, place, begun, share, self._injected))
        self._injected.begun(place, stop, begun, self._names)
        self._history.add("loss", f"{place[0]}/{place[1]}", stop=stop, folded=begun)
        self._start_folds()
        offers = {f"{place[0]}/{place[1]}@{marker}": stop for marker in begun.values()}
        fleet.until(f"{offers} is named", lambda: offers.items() <= self._offers().items())
        fleet.set_for_folds("RILLFOLD_ACCEPT_LOSS", offers)
        for hand in fleet.folds:
            hand.kill()
        self._start_folds()
        self._history.add("loss accepted")

    def _start_folds(self) -> None:
        self._fleet.asleep.clear()
        for hand in self._fleet.folds:
            hand.start()

    def _begun(self, place: Place) -> dict[str, int]:
        found = self._asked(lambda log: markers(log, place, self._fleet.projections, self._names))
        return {name: marker for name, marker in found.items() if marker is not None}

    def _offers(self) -> dict[str, int]:
        """What those that fold now ask an operator to say."""
        found: dict[str, int] = {}
        for offer in OFFER.findall("\n".join(hand.said() for hand in self._fleet.folds)):
            found |= json.loads(offer)
        return found

    def _asked(self, question: Callable[[KafkaLog], Awaitable[T]]) -> T:
        async def ask() -> T:
            async with KafkaLog(self._fleet.servers.bootstrap) as log:
                return await question(log)

        return asyncio.run(ask())
