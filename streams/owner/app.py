"""The Faust worker that folds: how it is put together, and what must stand before it starts."""

import asyncio
import logging
import sys
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from hashlib import sha256
from pathlib import Path
from typing import Any, NamedTuple

import faust
from aiokafka.errors import KafkaError
from yarl import URL

from projections.projection import Projection
from schemas.envelope import Event
from schemas.errors import Retry
from schemas.topics import TopicNames
from streams.errors import RETRY_SECONDS, Misconfigured, Unreachable
from streams.fold.commit import Ports
from streams.fold.failpoint import FailPoint
from streams.fold.folding import Folding
from streams.fold.tally import Tally
from streams.log.kafka.access import KafkaAccess
from streams.log.kafka.log import KafkaLog
from streams.log.kafka.opened import keep_bytes
from streams.log.outgoing import to_outgoing
from streams.log.port import EventLog, Learn, nothing_to_learn
from streams.owner.credentials import credentials_of
from streams.owner.faust_seam import BatchSchema, BatchTransport, RowApp, RowAssignor
from streams.owner.faust_tables import RowTableManager, add_table
from streams.owner.fence import FencedChangelogs
from streams.owner.garbage import keep_garbage_rare
from streams.owner.glance import Glance
from streams.owner.open_files import have_room_for
from streams.owner.refill import refill
from streams.owner.rivals import Rivals
from streams.owner.shards import ShardOwner
from streams.state.changelog import topic_of
from streams.state.prepare import prepare
from streams.state.recent import RecentStores
from streams.state.store import RocksStores

log = logging.getLogger(__name__)
FOLD_GROUP = "rillfold"
"""After the prefix, the group that folds every projection; another has theirs after it."""
FOLD_FETCH_BYTES = 4 << 20
# A compressed fetch can hold many more than that: this bounds a batch in memory, and what a crash does again.
BATCH_RECORDS = 8_000
LOOK_AROUND_MS = 30_000
"""So often a worker asks which topics there are: one that was made anew is given out to the group again."""
RECENT_BYTES = 64 << 20
"""Rows that a worker keeps in memory, all its projections together."""
TURN_SECONDS = 0.001
"""So long an answer to a query waits for the interpreter while the fold has it. Python's own is five times that."""


class Worker(NamedTuple):
    """What decides a worker. `app_id` names its consumer group; `name` tells the workers of a group apart."""

    access: KafkaAccess
    app_id: str
    name: str
    data_dir: Path
    names: TopicNames
    failpoint: str = ""
    learn: Learn = nothing_to_learn
    session_timeout: float = 15.0
    accepted: Mapping[str, int] = {}

    def rivals(self, projections: Sequence[Projection[Any]]) -> Rivals:
        folded = [projection.name for projection in projections]
        return Rivals(self.app_id, f"{self.names.prefix}{FOLD_GROUP}", folded, self.access)


def run(
    worker: Worker,
    projections: Sequence[Projection[Any]],
    log_level: str = "WARNING",
    beside: Callable[[Glance], AbstractContextManager[object]] = nullcontext,
) -> None:
    """Until a signal stops it: SIGTERM lets the batches in hand finish. `beside` lives as long, in its own threads."""
    worker.data_dir.mkdir(parents=True, exist_ok=True)
    have_room_for(asyncio.run(_prepare(worker, projections)))
    app = create_app(worker, KafkaLog(worker.access, client_id=f"rillfold-{worker.name}"), projections)
    keep_garbage_rare()
    sys.setswitchinterval(TURN_SECONDS)
    with beside(app.glance):
        faust.Worker(
            app, loglevel=log_level, quiet=True, override_logging=not logging.root.handlers
        ).execute_from_commandline()


async def _prepare(worker: Worker, projections: Sequence[Projection[Any]]) -> int:
    """How many changelog partitions there are: all of them may come to one worker."""
    async with KafkaLog(worker.access) as event_log:
        await prepare(event_log, projections, worker.names)
        counts = [len(await event_log.ends(topic_of(each, worker.names.prefix))) for each in projections]
    await worker.rivals(projections).gone(2 * worker.session_timeout)
    return sum(counts)


class FoldApp(RowApp):
    """`glance` is for whoever watches."""

    glance: Glance

    async def start(self) -> None:
        """A broker can go between the look at it and this: Faust would end with its own traceback."""
        try:
            await super().start()
        except KafkaError as error:
            self.shard_owner.failed(Unreachable(self.access.servers, error))


def create_app(worker: Worker, event_log: EventLog, projections: Sequence[Projection[Any]]) -> FoldApp:
    """Topics must stand: see `prepare`."""
    keep_bytes()
    app = FoldApp(worker.app_id, **_settings(worker, projections))
    if app.in_transaction:
        raise Misconfigured("Faust's exactly_once loses and doubles after a crash. Unset PROCESSING_GUARANTEE.")
    fence = FencedChangelogs(worker.name, worker.access)
    ports = Ports(_publisher(event_log, worker.names), fence.append, FailPoint(worker.failpoint), worker.learn)
    tally = Tally()
    folding = Folding(projections, worker.names, tally.counting(ports), worker.accepted)
    app.glance = Glance(app, folding, tally)
    app.access = worker.access
    app.transport = BatchTransport(app.conf.broker_consumer, app)
    stores = RecentStores(RocksStores(worker.data_dir / "tables"), RECENT_BYTES)
    refilled = partial(refill, access=worker.access)
    alone = worker.rivals(projections).yield_to_the_first
    app.shard_owner = ShardOwner(folding, fence, stores, event_log, worker.app_id, refilled, alone)
    for projection in projections:
        add_table(app, folding.changelog(projection))
    _agent(app, folding)
    return app


def _agent(app: RowApp, folding: Folding) -> None:
    sources = app.topic(*sorted(folding.sources), schema=BatchSchema())

    @app.agent(sources, name="fold", concurrency=2)
    async def fold(batches: Any) -> None:
        async for batch in batches:
            try:
                await folding.step(batch)
            except Exception as error:
                app.shard_owner.failed(error)
            app.folded(batch)


def _publisher(event_log: EventLog, names: TopicNames) -> Callable[[Sequence[Event]], Awaitable[None]]:
    async def publish(events: Sequence[Event]) -> None:
        outgoing = [to_outgoing(event, names) for event in events]
        await _patiently(lambda: event_log.append(outgoing))

    return publish


async def _patiently(action: Callable[[], Awaitable[object]]) -> None:
    """What fails because the world is in the way holds its partition until the world is back."""
    while True:
        try:
            await action()
            return
        except Retry as error:
            log.warning("%s", error)
            await asyncio.sleep(RETRY_SECONDS)


def _member(worker: Worker, projections: Sequence[Projection[Any]]) -> str:
    """By this the group knows a worker again, and hands it what it had without asking what it reads now.

    So one that reads other topics, as after an upgrade that brings a projection's next version, is another member.
    """
    topics = {worker.names.wire(topic) for each in projections for topic in each.topics}
    topics |= {topic_of(each, worker.names.prefix) for each in projections}
    return f"{worker.name}-{sha256(' '.join(sorted(topics)).encode()).hexdigest()[:8]}"


def _settings(worker: Worker, projections: Sequence[Projection[Any]]) -> dict[str, Any]:
    return {
        "broker": [URL(f"aiokafka://{server.strip()}") for server in worker.access.servers.split(",")],
        "broker_credentials": credentials_of(worker.access),
        "datadir": str(worker.data_dir / "faust"),
        "TableManager": RowTableManager,
        "PartitionAssignor": RowAssignor,
        "store": "memory://",
        "processing_guarantee": "at_least_once",
        "key_serializer": "raw",
        "value_serializer": "raw",
        # Where a record that was to be read is gone, nobody goes on elsewhere before it is said.
        "consumer_auto_offset_reset": "none",
        "consumer_metadata_max_age_ms": LOOK_AROUND_MS,
        "consumer_max_fetch_size": FOLD_FETCH_BYTES,
        "broker_max_poll_records": BATCH_RECORDS,
        # Batches, not records: a rebalance waits until those in hand are folded.
        "stream_buffer_maxsize": 8,
        "stream_wait_empty": True,
        "stream_recovery_delay": 0.0,
        "recovery_consistency_check": False,
        "broker_commit_interval": 1.0,
        # Where nobody listens; but the leader tells by it who of the group reads what.
        "canonical_url": f"http://{sha256(_member(worker, projections).encode()).hexdigest()[:16]}",
        # A worker that comes back under its name gets its partitions back at once, with no rebalance.
        "consumer_group_instance_id": _member(worker, projections),
        "broker_session_timeout": worker.session_timeout,
        "broker_heartbeat_interval": worker.session_timeout / 5,
        # No session may outlast a request.
        "broker_request_timeout": max(20.0, worker.session_timeout),
        "producer_request_timeout": 30.0,
        "topic_allow_declare": False,
        "topic_disable_leader": True,
        "web_enabled": False,
        "worker_redirect_stdouts": False,
    }
