"""The other place that leans on Faust's insides, beside `faust_seam.py`: tables, and how they are restored."""

import logging
from collections.abc import Iterable
from contextlib import suppress
from typing import Any, cast

import faust
from aiokafka.errors import IllegalStateError
from faust.tables.manager import TableManager
from faust.tables.recovery import RebalanceAgain, Recovery
from faust.tables.table import Table
from faust.types import TP, EventT

from streams.fold.batch import Batch
from streams.owner.faust_seam import BatchSchema, owner_of, to_the_end

log = logging.getLogger(__name__)


class RowTable(Table):  # type: ignore[type-arg]
    """A Faust table whose content is kept elsewhere, by partition, and restored by whole batches."""

    def _changelog_topic_name(self) -> str:
        return str(self.name)

    async def on_start(self) -> None:
        """Topics are made before the worker starts; there is no store to start."""

    def persisted_offset(self, tp: TP) -> int | None:
        return owner_of(self.app).persisted(tp)

    async def need_active_standby_for(self, tp: TP) -> bool:
        return owner_of(self.app).persisted(tp) is None

    async def on_rebalance(self, *_: Any) -> None:
        """All tables at once: see RowTableManager."""

    def apply_changelog_batch(self, batch: Iterable[EventT[Any]]) -> None:
        with to_the_end(self.app):
            for event in batch:
                tp, read = event.message.tp, cast(Batch, event.value)
                pairs = ((record.key or b"", record.value) for record in read.records)
                needed = owner_of(self.app).restore(tp, read.start, pairs, read.records[-1].offset)
                if needed is not None:
                    self._go_back(tp, needed)

    def _go_back(self, tp: TP, needed: int) -> None:
        """Whoever seeks for a rebalance that is under way goes there as well."""
        log.warning("%s/%d: a copy goes on at %d, and what came stands behind it: it is read again", *tp, needed)
        recovery: Recovery = cast(Any, self.app.tables).recovery
        if tp in recovery.standby_tps:
            recovery.standby_offsets[tp] = needed - 1
            self.add_future(self._sought(tp, needed))

    async def _sought(self, tp: TP, offset: int) -> None:
        with suppress(IllegalStateError):  # taken away meanwhile
            await self.app.consumer.seek_wait({tp: offset})

    async def on_recovery_completed(self, active_tps: set[TP], standby_tps: set[TP]) -> None:
        with to_the_end(self.app):
            await owner_of(self.app).restored(active_tps)


class BatchRecovery(Recovery):
    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.rebalances = dict[int, int]()
        """Of the last generations, by Faust's count of rebalances."""

    def given(self, generation: int) -> None:
        self.rebalances = {self._generation_id: self.rebalances.get(self._generation_id, 0)}
        self.rebalances[generation] = self.app.rebalancing_count

    async def _wait(self, coro: Any, timeout: Any = None) -> None:
        """Faust would go on with half a step when its time is up. A table takes its time; a watchman looks on.

        Nor does it notice a rebalance before that has given something out: it would let records flow whose rows are in
        nobody's hands by then, and what came behind those would be no longer contiguous.
        """
        await super()._wait(coro)
        if self.app.rebalancing_count != self.rebalances.get(self._generation_id):
            raise RebalanceAgain

    async def _build_highwaters(self, consumer: Any, tps: set[TP], destination: Any, title: str) -> None:
        """Claims come before the ends are read: nothing can be appended behind an end by an earlier owner."""
        if title == "active":
            with to_the_end(self.app):
                await owner_of(self.app).claim(tps)
        await super()._build_highwaters(consumer, tps, destination, title)
        for tp in tps:
            kept = owner_of(self.app).persisted(tp)
            if kept is not None and kept > destination[tp]:
                owner_of(self.app).forget(tp)
                offsets: Any = self.active_offsets if title == "active" else self.standby_offsets
                offsets[tp] = None
        if title == "active":
            await self._refill(tps)

    async def _build_offsets(self, consumer: Any, tps: set[TP], destination: Any, title: str) -> None:
        """Ours are known. The question would wait for a fetch that waits for records, on the same connection."""
        if title != "active":
            await super()._build_offsets(consumer, tps, destination, title)

    async def _refill(self, tps: set[TP]) -> None:
        """Past Faust, which then finds nothing left to recover. It still reads what we only stand by for."""
        with to_the_end(self.app):
            complete = await owner_of(self.app).refill(tps)
        if not complete:
            raise RebalanceAgain
        for tp in tps:
            self.active_offsets[tp] = cast(int, owner_of(self.app).persisted(tp))


class RowTableManager(TableManager):
    @property
    def recovery(self) -> Recovery:
        if self._recovery is None:
            self._recovery = BatchRecovery(self.app, self, beacon=self.beacon, loop=self.loop)
        return self._recovery

    async def on_rebalance(self, assigned: set[TP], revoked: set[TP], newly: set[TP], generation_id: int = 0) -> None:
        cast(BatchRecovery, self.recovery).given(generation_id)
        ours = self.app.assignor.assigned_actives() | self.app.assignor.assigned_standbys()
        await owner_of(self.app).assigned(tp for tp in ours if tp.topic in self.changelog_topics)
        await super().on_rebalance(assigned, revoked, newly, generation_id)

    def on_actives_ready(self) -> None:
        super().on_actives_ready()
        owner_of(self.app).ready()


def add_table(app: faust.App, changelog: str) -> None:
    # Two batches at most wait to be applied. One would make Faust read the changelog on after the recovery.
    app.tables.add(
        RowTable(app, name=changelog, recovery_buffer_size=2, schema=BatchSchema(), beacon=app.tables.beacon)
    )
