"""What the log says of one run, in its order: read where it stands, for no row holds it."""

from collections import OrderedDict

from projections.training_runs import TRAINING_RUNS, Run
from rillfold.api.tuning.reading import own_events, reading
from rillfold.wiring import Services
from schemas.envelope import Event
from schemas.training import TrainingRequested, TrainingWithdrawn
from streams.errors import MissingOffsets

SKEW_MS = 600_000
"""The log's clock and that of whoever asked may be so far apart."""
ONCE = (TrainingRequested, TrainingWithdrawn)
"""Whoever has the company's key may say them again and again: the first one counts."""


class NewestSaid:
    """The newest so many, however many there are; what is said twice is told once."""

    def __init__(self, most: int, before: str | None) -> None:
        self._most, self._before = most, before
        self._said = set[type[Event]]()
        self.events = OrderedDict[str, Event]()

    def take(self, event: Event) -> bool:
        """False: what comes now is not asked for."""
        if event.id == self._before:
            return False
        kind = type(event)
        if event.id not in self.events and kind not in self._said:
            self._said.update({kind} & set(ONCE))
            self.events[event.id] = event
            if len(self.events) > self._most:
                self.events.popitem(last=False)
        return True


async def story_of(serving: Services, run: Run, most: int, before: str | None = None) -> list[Event]:
    """From its request to the last that changed its row: all in the company's one partition. `before`: the event that
    they end before; one that is nowhere ends nothing."""
    key = f"{run.company}/{run.run}"
    row = await serving.reads.row(TRAINING_RUNS, key)
    if row is None:
        return []
    topic, partition, stop = row.at.topic, row.at.partition, row.at.offset + 1
    async with reading(serving, run.company):
        start = (await serving.log.offsets_at(topic, max(0, run.requested_at // 1_000 - SKEW_MS)))[partition]
        try:
            return await _of(serving, run, topic, partition, min(start, stop - 1), stop, NewestSaid(most, before))
        except MissingOffsets as error:
            return await _of(serving, run, topic, partition, error.first, stop, NewestSaid(most, before))


async def _of(
    serving: Services, run: Run, topic: str, partition: int, start: int, stop: int, story: NewestSaid
) -> list[Event]:
    key = f"{run.company}/{run.run}"
    async for event in own_events(serving, run.company, run.company, topic, partition, start, stop):
        if TRAINING_RUNS.key(event) == key and not story.take(event):
            break
    return list(story.events.values())
