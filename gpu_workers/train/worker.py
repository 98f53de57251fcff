"""The training worker: a plain consumer group. It polls on while a child trains, and says each thing once."""

import asyncio
import logging
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence

from gpu_workers.adapters.port import AdapterStore
from gpu_workers.inbox.begun import Begun, request_in
from gpu_workers.inbox.inbox import TOO_MANY, Inbox, Item, Polled
from gpu_workers.inbox.reread import Reread
from gpu_workers.train.handling import Handling
from gpu_workers.train.parent import Train, train_in_child
from gpu_workers.train.place import Workplace
from processors.training.admit import NotAdmitted
from projections.training_runs import ENDED, Run
from schemas.envelope import Event
from schemas.topics import TopicNames
from schemas.training import TrainingRequested, TrainingWithdrawn
from streams.health.standing import Standing
from streams.health.watch import Counts
from streams.log.port import EventLog, Subscription

log = logging.getLogger(__name__)

GROUP = "rillfold-train"
TOPIC = "training-request"
POLL_SECONDS = 0.5
# A worker that lost a run hears so from the group by then; where it did not lose it, it begins the run anew.
LOST_SECONDS = 5.0
# A run that ends so soon makes room for the next before the next poll, as long as the polls allow.
SOON_SECONDS = 0.1
ENDED_AT_ONCE = 500
"""Of those that were taken back: so many outcomes stand in the log before the worker looks up again."""
CLAIMS_A_TURN = 32


class Trainer:
    """`run` until cancelled."""

    def __init__(
        self,
        event_log: EventLog,
        names: TopicNames,
        store: AdapterStore,
        place: Workplace,
        train: Train = train_in_child,
        inbox: Inbox | None = None,
    ) -> None:
        self._log, self._names, self._place = event_log, names, place
        self._inbox = Inbox() if inbox is None else inbox  # an empty one is false
        self._words = Reread(event_log, self._inbox, ahead=1)
        self.standing = Standing()
        self._begun = Begun(self._inbox, self.standing, self._handle, 1, [self._words.clear])
        self._handling = Handling(event_log, names, store, place, train, self.standing.beat)
        self._generation = 0
        self._runs_ended = 0
        self._waits: float = POLL_SECONDS
        """For the next poll: nothing, while runs end as soon as they are begun."""

    def counts(self) -> Counts:
        return {"training_runs": ("Runs that came to an end.", self._runs_ended)}

    async def run(self, ready: Callable[[], None]) -> None:
        with self._place.held():
            await self._handling.sweep()
            async with self._log.subscribe(self._names.wire(GROUP), [self._names.wire(TOPIC)]) as group:
                ready()
                try:
                    while True:
                        await self._step(group)
                finally:
                    await self._begun.end()

    async def _step(self, group: Subscription) -> None:
        """Poll; drop what is no longer ours; refuse at once what can be; stop what nobody wants any more; finish runs
        and begin the next; commit."""
        polled = await self._begun.ours(group, await self._inbox.poll(group, self._waits))
        self._generation = group.generation()
        told = await self._at_home(list(self._told(polled)))
        await self._take(polled, [(item, event) for item, event in told if isinstance(event, TrainingRequested)])
        await self._begun.keep_only_ours(group)
        if self._inbox.full() or any(isinstance(event, TrainingWithdrawn) for _, event in told):
            # A full inbox is polled and hears nothing: what stands in the log is read beside it.
            await self._handling.runs({partition for _, partition in group.assignment()})
        await self._heed()
        await self._work_on(group)

    async def _work_on(self, group: Subscription) -> None:
        """One run, whose end the next poll hears of. A full inbox hears nothing: there one run goes after the other,
        until one takes its time or the next poll is due."""
        until, self._waits = time.monotonic() + POLL_SECONDS, POLL_SECONDS
        while True:
            for work in self._begun.done():
                if not work.task.result():  # what only the world can be the cause of is raised here
                    self._begun.postponed(work, LOST_SECONDS)
                    continue
                self._begun.finished([work])
                self._runs_ended += 1
                self._waits = 0  # there is room: what stands in the log is asked for at once
            self._begun.begin()
            await self._begun.commit(group)
            if not self._begun.work or not self._inbox.full() or time.monotonic() >= until:
                return
            await asyncio.wait([work.task for work in self._begun.work], timeout=SOON_SECONDS)
            if not self._begun.done():
                return

    async def _take(self, polled: Polled, asked: Sequence[tuple[Item, TrainingRequested]]) -> None:
        """A request waits only for what it alone needs: one that cannot be done is refused while others train."""
        where = {item.place[1] for item, _ in asked}
        runs = await self._handling.runs(where) if asked else {}
        refused: dict[tuple[str, str], Sequence[Event]] = {}
        for item, request in asked:
            key = (item.company, item.id)
            known = runs.get("/".join(key))
            if key in refused or (known and known.status in ENDED):
                continue
            held, crowded = self._inbox.has(*key), self._inbox.crowded(item.company)
            if not held and (refusal := await self._refusal(request, known, crowded)):
                refused[key] = refusal
            elif not crowded:
                self._inbox.add(item)
            # Else it repeats a run that waits, for which there is one outcome. One that asks for something else under
            # the same id has none either, which would be taken for the run's: the run's row counts it.
        await self._end(where, refused)
        for place, records in polled.items():
            self._inbox.passed(place, records[-1].offset + 1)

    async def _at_home(self, told: list[tuple[Item, Event]]) -> list[tuple[Item, Event]]:
        """A record that stands elsewhere than its key belongs is no request, or two workers would train it: it is sent
        where one worker has all of its company, and is done with here."""
        people = [(item, event) for item, event in told if isinstance(event, TrainingRequested | TrainingWithdrawn)]
        homes = await self._handling.homes({item.company for item, _ in people})
        away = [(item, event) for item, event in people if item.place[1] != homes[item.company]]
        for item, event in away:
            place = f"{item.place[0]}/{item.place[1]}/{item.offset}"
            log.warning("%s %s of %s at %s: sent where its key belongs.", event.type, item.id, item.company, place)
        if away:
            await self._handling.send_home([event for _, event in away])
        elsewhere = {item for item, _ in away}
        return [(item, event) for item, event in told if item not in elsewhere]

    async def _heed(self) -> None:
        """Of wishes taken back: those that wait are ended here, what is under way ends itself. Their words are not
        needed; a claim is, one reading each, so of those that somebody had begun a few a turn."""
        claims = CLAIMS_A_TURN
        for company, runs in list(self._handling.withdrawn().items()):
            waiting = self._inbox.waiting_of(company, runs)
            begun = [run for run in waiting if self._handling.begun(company, run)]
            later, claims = set(begun[claims:]), max(0, claims - len(begun))
            now = [run for run in waiting if run not in later]
            for first in range(0, len(now), ENDED_AT_ONCE):
                gone = {item.id: item for item in self._inbox.drop(company, set(now[first : first + ENDED_AT_ONCE]))}
                told = {(company, item.id): await self._taken_back(item.envelope()) for item in gone.values()}
                await self._end({item.place[1] for item in gone.values()}, told)

    async def _taken_back(self, request: Event) -> Sequence[Event]:
        self.standing.beat()
        return await self._handling.taken_back(request, self._handling.claim_of(request, self._generation))

    async def _end(self, partitions: Collection[int], outcomes: Mapping[tuple[str, str], Sequence[Event]]) -> None:
        if outcomes:
            await self._handling.end(partitions, *(event for events in outcomes.values() for event in events))
            self.standing.beat()
            self._runs_ended += len(outcomes)

    async def _refusal(self, request: TrainingRequested, known: Run | None, crowded: str | None) -> Sequence[Event]:
        if known and known.withdrawn is not None:
            # One that somebody had begun is ended among those that wait, where there is room for it.
            return await self._taken_back(request) if crowded or known.status != "accepted" else []
        why = self._handling.admitted(request)
        if not isinstance(why, NotAdmitted):
            if crowded is None:
                return []
            why = NotAdmitted(TOO_MANY, crowded)
        return [self._handling.refused(request, why, self._handling.claim_of(request, self._generation))]

    def _told(self, polled: Polled) -> Iterator[tuple[Item, Event]]:
        for place, records in polled.items():
            for record in records:
                if event := request_in(record, Event):
                    yield Item.of(event, place, record.offset), event

    async def _handle(self, item: Item) -> bool:
        """Whether it is done with."""
        generation = self._generation
        request = request_in(await self._words.of(item), TrainingRequested)
        return request is None or await self._handling.handle(request, item.place[1], generation)
