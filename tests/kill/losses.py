"""What befalls the sources of a fleet: one loses its beginning, folded or not; one is deleted and made anew."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable, Iterable, Mapping

from projections.catalog import PROJECTIONS
from schemas.topics import TopicNames
from streams.log.kafka.log import KafkaLog
from streams.state.changelog import Loss, loss_key, topic_of
from tests.kill.fleet import Fleet
from tests.kill.injected import NOWHERE, Injected, Own, Place, delete, delete_unfolded, made_anew, markers, records

BOUNDED = ("company-data", "training-request", "adapter-ready")
"""Topics whose folded beginning goes. A job needs its own from the start, under a next version too."""
ANEW = ("training-request", "adapter-ready")
"""Topics that are made anew: nobody in the fleet writes there, and all who fold them are in every release."""
OFFER = re.compile(r"RILLFOLD_ACCEPT_LOSS='(\{.*?\})'")
"""As a worker spells what an operator may say."""


class Losses:
    """Each is one action of the plan, and notes what the judge must know of it."""

    def __init__(self, fleet: Fleet, names: TopicNames, injected: Injected) -> None:
        self._fleet, self._names, self._injected = fleet, names, injected
        self._rnd, self._history = fleet.rnd, fleet.history

    def retention(self) -> None:
        """Of one partition all goes that is folded by all, or a part of it: nothing is lost."""
        places = [(self._names.wire(topic), partition) for topic in BOUNDED for partition in range(4)]
        self._rnd.shuffle(places)
        share = self._rnd.choice((0.5, 1.0))
        self._fleet.until(
            "all fold some partition", lambda: self._fleet.asked(lambda log: self._retain(log, places, share))
        )

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
        self._kill_folds()
        begun = self._begun(place)
        while begun != (begun := self._begun(place)):
            time.sleep(0.5)
        fleet.more()
        self._grow(place[0], lambda ends: ends[place[1]] > max(begun.values()))
        share, servers = self._rnd.random(), fleet.servers
        stop = fleet.asked(lambda log: delete_unfolded(log, servers, place, begun, share, self._injected))
        self._injected.begun(place, stop, begun, self._names)
        self._history.add("loss", f"{place[0]}/{place[1]}", stop=stop, folded=begun)
        self._start_folds()
        offers = {f"{place[0]}/{place[1]}@{marker}": stop for marker in begun.values()}
        self._named(offers)
        self._accept(offers)
        self._history.add("loss accepted")

    def truncation(self) -> None:
        """A topic is made anew when all of it is folded. Whatever comes to it then, it stands still until an operator
        says from where on; the folds are sometimes dead meanwhile, and sometimes start once more before he does."""
        fleet, topic = self._fleet, self._names.wire(self._rnd.choice(ANEW))
        dead, again = self._rnd.random() < 0.5, self._rnd.random() < 0.5
        self._grow(topic, lambda ends: all(ends.values()))
        fleet.until(f"all of {topic} is folded", lambda: fleet.asked(lambda log: self._all_folded(log, topic)))
        if dead:
            self._kill_folds()
        fleet.asked(lambda log: made_anew(log, fleet.servers, self._names, topic, self._injected))
        self._history.add("truncation", topic, dead=dead, again=again)
        if dead:
            self._start_folds()
        folded = fleet.asked(lambda log: self._markers(log, topic))
        self._injected.cut(folded)
        offers = {f"{place[0]}/{place[1]}@{at}": 0 for (_, *place), at in folded.items()}
        self._named(dict.fromkeys(offers, NOWHERE))
        self._grow(topic, lambda ends: any(ends.values()))
        if again:
            self._kill_folds()
            self._start_folds()
            self._named(dict.fromkeys(offers, NOWHERE))
        stands = fleet.asked(lambda log: self._markers(log, topic))
        assert stands | folded == stands, (
            f"{topic} was made anew, and goes from {folded} to {stands} with nobody's word"
        )
        self._accept(offers)
        fleet.until(f"{topic} is folded on", lambda: fleet.asked(lambda log: self._accepted(log, folded)))
        self._history.add("truncation accepted", folded=sorted(offers))

    def _grow(self, topic: str, enough: Callable[[Mapping[int, int]], bool]) -> None:
        """Until what its partitions hold is enough; then nobody sends any more."""
        fleet, ends = self._fleet, dict[int, int]()

        def come() -> bool:
            if fleet.nothing_comes():
                ends.update(fleet.asked(lambda log: log.ends(topic)))
                if enough(ends):
                    return True
                fleet.one_more()
            return False

        fleet.until(f"{topic} grows", come)
        self._history.add("holds", topic, ends=sorted(ends.items()))

    async def _all_folded(self, log: KafkaLog, topic: str) -> bool:
        """No record stands behind a marker: what an aborted transaction left may."""
        first = await log.starts(topic)
        for partition, start in first.items():
            found = await markers(log, (topic, partition), self._fleet.projections, self._names)
            for marker in found.values():
                async for _ in records(log, (topic, partition), start if marker is None else marker):
                    return False
        return True

    async def _markers(self, log: KafkaLog, topic: str) -> dict[Own, int]:
        found: dict[Own, int] = {}
        for partition in await log.ends(topic):
            place = topic, partition
            by_name = await markers(log, place, self._fleet.projections, self._names)
            found |= {(name, *place): marker for name, marker in by_name.items() if marker is not None}
        return found

    async def _accepted(self, log: KafkaLog, folded: Mapping[Own, int]) -> bool:
        """It stands in each changelog by now."""
        for (name, topic, partition), at in folded.items():
            changelog = topic_of(PROJECTIONS[name], self._names.prefix)
            written = records(log, (changelog, partition), 0)
            if not [None async for record in written if record.key == loss_key(Loss(topic, partition, at, 0))]:
                return False
        return True

    def _accept(self, offers: Mapping[str, int]) -> None:
        self._fleet.accept_loss(offers)
        self._kill_folds()
        self._start_folds()

    def _named(self, offers: Mapping[str, int | str]) -> None:
        self._fleet.until(f"{offers} is named", lambda: offers.items() <= self._offers().items())

    def _kill_folds(self) -> None:
        self._fleet.asleep.update(self._fleet.folds)
        for hand in self._fleet.folds:
            hand.kill()

    def _start_folds(self) -> None:
        self._fleet.asleep.clear()
        for hand in self._fleet.folds:
            hand.start()

    def _begun(self, place: Place) -> dict[str, int]:
        found = self._fleet.asked(lambda log: markers(log, place, self._fleet.projections, self._names))
        return {name: marker for name, marker in found.items() if marker is not None}

    def _offers(self) -> dict[str, int | str]:
        """What those that fold now ask an operator to say."""
        found: dict[str, int | str] = {}
        for offer in OFFER.findall("\n".join(hand.said() for hand in self._fleet.folds)):
            found |= json.loads(offer.replace(f": {NOWHERE}", f': "{NOWHERE}"'))
        return found
