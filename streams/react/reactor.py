"""A reaction at work: one member of its group, in a loop that ends by the world alone.

The order: 1. poll, 2. where a partition is new here, be its one appender and begin where the group stands in truth,
3. try the reaction over one event after another, 4. append what they emit, letters of those that failed, and how far
the group has come, in one transaction. A crash before 4 leaves nothing; there is no crash within it. Whoever was asleep
in between is refused at 4 by the epoch of the next one's.
"""

import asyncio
import logging
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass
from typing import NamedTuple

from schemas.topics import TopicNames
from streams.errors import NAMED, RETRY_SECONDS, AppendFailed, Fenced, MissingOffsets, ShutOut, TooLarge
from streams.fairness.slices import unheard
from streams.fold.batch import NoEvent
from streams.fold.failpoint import FailPoint
from streams.health.standing import Standing
from streams.log.port import Alone, EventLog, Outgoing, Reached, Record, Subscription, TopicPartition
from streams.react.causes import Causes
from streams.react.outcome import Cause, Failed, Ran, Sleep, Trying, burials, letters, reacted
from streams.react.reaction import Reaction
from streams.react.rests import Rests
from streams.react.thread import OwnThread

BATCH = 500
POLL_SECONDS = 1.0
TURN_SECONDS = 5.0
"""After so long what was done is committed, and the group is polled: it lets go of who does not."""
QUIET_SECONDS = 1.0
"""Where nothing was for the reaction, how far it has read may wait so long."""

log = logging.getLogger(__name__)


class _Handled(NamedTuple):
    """What came of one event, or that it is none, and the next offset behind it."""

    cause: Cause | NoEvent
    outcome: Ran | Failed
    next: int


@dataclass
class _OwnPartition:
    """A partition whose one appender is this one."""

    stack: AsyncExitStack
    alone: Alone
    next: int
    committed: int
    since: float
    """When it was committed."""


class Reactor:
    """`sleep` waits between tries, `clock` is in seconds, `stamp` is the time of records in milliseconds (None: the
    log's own). `alone`: of a topic that no fold reads, this one writes the letters of what is no event."""

    def __init__(
        self,
        event_log: EventLog,
        names: TopicNames,
        reaction: Reaction,
        sleep: Sleep = asyncio.sleep,
        clock: Callable[[], float] = time.monotonic,
        *,
        stamp: Callable[[], int | None] = lambda: None,
        failpoint: FailPoint | None = None,
        quiet: float = QUIET_SECONDS,
        alone: bool = False,
    ) -> None:
        self._log, self._clock, self._stamp, self._quiet = event_log, clock, stamp, quiet
        self.reaction, self.group = reaction, reaction.group(names)
        self.standing = Standing()
        self._causes, self._names = Causes(event_log, names, reaction, alone), names
        self.topics = self._causes.topics
        self._thread = OwnThread(str(reaction))
        self._trying = Trying(reaction, names, self._thread, sleep, self.standing.beat)
        self._failpoint = failpoint or FailPoint()
        self._generation = 0
        self._held: dict[TopicPartition, _OwnPartition] = {}
        self._rests = Rests()
        self.ran, self.failed, self.emitted, self.expired = 0, 0, 0, 0

    async def run(self, joined: Callable[[], None] = unheard) -> None:
        """`joined` is called once, when the group's first answer is there."""
        await self.begin()
        try:
            async with self._log.subscribe(self.group, self.topics) as member:
                while True:
                    await self.step(member, POLL_SECONDS)
                    joined()
                    joined = unheard
        finally:
            await self.end()

    async def begin(self) -> None:
        """Says once where a group begins that is to begin now: from then on nothing is passed over."""
        if self.reaction.begin == "first" and not await self._begun():
            self._say_where(await self._log.starts(self._causes.source), await self._log.ends(self._causes.source))
        while self.reaction.begin == "now" and not await self._begun():
            with suppress(ShutOut):
                async with self._log.alone(f"{self.group}-begin") as alone:
                    if not await self._begun():
                        ends = await self._ends()
                        await alone.append([], Reached(self.group, ends))
                        here = {n: end for (topic, n), end in ends.items() if topic == self._causes.source}
                        self._say_where(here, here)

    def _say_where(self, begins: Mapping[int, int], ends: Mapping[int, int]) -> None:
        """A group whose offsets the broker has forgotten looks as one that never was: only who reads this can tell."""
        if not any(ends.values()):
            return  # nothing ever stood there
        told = {
            "now": "events before are not reacted to",
            "first": "all events from there on are reacted to, also those that were before",
        }[self.reaction.begin]
        why = "it starts for the first time, or Kafka has forgotten its offsets (offsets.retention.minutes)"
        where = ", ".join(f"{self._causes.source}/{n}/{offset}" for n, offset in sorted(begins.items()))
        line = "%s: group %s has committed nothing on %s: %s. It begins at %s: %s"
        log.warning(line, self.reaction, self.group, self._causes.source, why, where, told, extra=NAMED)

    async def _begun(self) -> bool:
        return bool(await self._log.committed(self.group, self._causes.source))

    async def _ends(self) -> dict[TopicPartition, int]:
        return {(topic, n): end for topic in self.topics for n, end in (await self._log.ends(topic)).items()}

    async def end(self) -> None:
        self._thread.stop()
        await self._let_go()

    async def step(self, member: Subscription, patience: float) -> bool:
        """One turn. Says whether anything came."""
        polled, gap = await self._polled(member, patience)
        await self.standing.found(member)
        if (generation := member.generation()) != self._generation:
            await self._let_go()
            self._generation = generation
        if gap is not None:
            await self._go_on_behind(member, gap)
        until = self._clock() + TURN_SECONDS
        for place in sorted(polled, key=self._committed_at):
            if place in member.assignment():
                await self._guarded(member, place, polled[place], until)
        for place, held in list(self._held.items()):
            if held.next > held.committed and self._clock() - held.since >= self._quiet:
                await self._guarded(member, place, (), until)
        return bool(polled) or gap is not None

    async def _polled(
        self, member: Subscription, patience: float
    ) -> tuple[Mapping[TopicPartition, Sequence[Record]], MissingOffsets | None]:
        try:
            return await member.poll(patience, BATCH), None
        except MissingOffsets as gap:
            if not self._causes.may_lack(gap):
                raise
            return {}, gap

    async def _go_on_behind(self, member: Subscription, gap: MissingOffsets) -> None:
        """With the first record that the log still has. The group has come that far with the next commit."""
        if gap.place not in self._held:
            await self._hold(member, gap.place)
        held = self._held.get(gap.place)
        if held is None or held.next >= gap.first:
            return
        with suppress(Fenced):
            await member.seek(gap.place, gap.first)
            told = "they expired before it came to them, and it goes on behind. Run more workers, or keep them longer"
            log.warning("%s has not read %s/%s [%d, %d): %s", self.reaction, *gap.place, held.next, gap.first, told)
            self.expired += gap.first - held.next
            held.next = gap.first

    def _committed_at(self, place: TopicPartition) -> float:
        """Who has waited longest has the first turn."""
        return self._held[place].since if place in self._held else 0.0

    async def _guarded(
        self, member: Subscription, place: TopicPartition, records: Sequence[Record], until: float
    ) -> None:
        """Where it is not known, or not ours, what stands in the log, the partition is begun again."""
        if place not in self._held:
            await self._hold(member, place)
            return
        try:
            await self._taken(member, place, records, until)
        except (ShutOut, AppendFailed) as error:
            log.warning("%s begins again with %s/%s: %s", self.reaction, *place, error)
            await self._held.pop(place).stack.aclose()
            if isinstance(error, AppendFailed):
                await self._trying.sleep(RETRY_SECONDS)
            await self._hold(member, place)

    async def _hold(self, member: Subscription, place: TopicPartition) -> None:
        """What an earlier one had begun is over, one way or the other, before the group is asked how far it is."""
        topic, partition = place
        async with AsyncExitStack() as stack:
            alone = await stack.enter_async_context(self._log.alone(f"{self.group}-{topic}-{partition}"))
            next_ = (await member.committed()).get(place)
            if next_ is None:
                return  # given to another meanwhile
            with suppress(Fenced):
                await member.seek(place, next_)
                self._held[place] = _OwnPartition(stack.pop_all(), alone, next_, next_, self._clock())

    async def _let_go(self) -> None:
        """Partitions were given out anew: what another has done meanwhile is asked for when their records come."""
        while self._held:
            await self._held.popitem()[1].stack.aclose()

    async def _taken(
        self, member: Subscription, place: TopicPartition, records: Sequence[Record], until: float
    ) -> None:
        held, parts = self._held[place], list[_Handled]()
        for record in records:
            if record.offset < held.next:
                continue
            if self._clock() >= until:
                with suppress(Fenced):
                    await member.seek(place, record.offset)
                break
            cause = await self._causes.of(record)
            held.next = record.offset + 1
            if isinstance(cause, NoEvent):
                parts.append(_Handled(cause, Failed("it is no event"), held.next))
            elif cause is not None:
                self._failpoint.reached("decoded")
                parts.append(_Handled(cause, await self._outcome(cause), held.next))
                self.standing.beat()
        if parts or not records:
            await self._commit(place, held, parts)

    async def _outcome(self, cause: Cause) -> Ran | Failed:
        company, begun = cause.event.company, self._clock()
        if self._rests.resting(company, begun):
            return Failed("not tried: earlier events of its company had held up the others, and failed")
        outcome = await reacted(self._trying, cause)
        if isinstance(outcome, Failed):
            self._rests.failed(company, begun, self._clock() - begun)
        return outcome

    async def _commit(self, place: TopicPartition, held: _OwnPartition, parts: Sequence[_Handled]) -> None:
        try:
            wanted = [record for part in parts for record in next(self._forms(part), ())]
            await self._append(place, held, wanted, held.next)
        except TooLarge:
            for part in parts:
                await self._whatever_fits(place, held, part)
        if parts:
            self._failpoint.reached("appended")
        self._count(parts)

    def _count(self, parts: Sequence[_Handled]) -> None:
        for outcome in (part.outcome for part in parts if isinstance(part.cause, Cause)):
            self.ran += isinstance(outcome, Ran)
            self.failed += isinstance(outcome, Failed)
            self.emitted += len(outcome.records) if isinstance(outcome, Ran) else 0

    async def _whatever_fits(self, place: TopicPartition, held: _OwnPartition, part: _Handled) -> None:
        for records in self._forms(part):
            with suppress(TooLarge):
                await self._append(place, held, records, part.next)
                return
        where = "{}/{}/{}".format(*place, part.next - 1)
        log.error("%s failed over %s, and no letter can say so", self.reaction, where, extra=NAMED)
        await self._append(place, held, (), part.next)

    def _forms(self, part: _Handled) -> Iterator[Sequence[Outgoing]]:
        """What is to stand in the log for it: the first that its topic takes."""
        cause, outcome, _ = part
        if isinstance(cause, NoEvent):
            yield from ([letter] for letter in burials(cause, self._names))
            return
        if isinstance(outcome, Ran):
            yield outcome.records
            outcome = Failed("what it emits is more than its topic takes")
        for letter in letters(self.reaction, self._names, cause, outcome.why):
            yield [letter]

    async def _append(
        self, place: TopicPartition, held: _OwnPartition, records: Sequence[Outgoing], next_: int
    ) -> None:
        stamp = self._stamp()
        stamped = [record._replace(timestamp=stamp) for record in records]
        await held.alone.append(stamped, Reached(self.group, {place: next_}))
        held.committed, held.since = next_, self._clock()
        self.standing.reached({place: next_})
