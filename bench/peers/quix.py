"""Quix Streams: a stateful count in RocksDB with its changelog topic."""

from collections.abc import Callable
from typing import Any

from quixstreams import Application, State
from quixstreams.models import Deserializer, SerializationContext
from quixstreams.models.topics import TopicConfig

from bench.peers.avro_dict import decoder
from bench.peers.meter import Job, Meter, job

FETCH = {"fetch.message.max.bytes": 1 << 20, "queued.min.messages": 200_000}


class Avro(Deserializer):
    def __init__(self) -> None:
        super().__init__()
        self._decode = decoder()

    def __call__(self, value: bytes, ctx: SerializationContext) -> dict[str, Any]:
        return self._decode(value)


def count(job: Job) -> None:
    meter, counts = Meter(job.events), dict[str, int]()
    app = Application(
        job.bootstrap,
        consumer_group=job.id,
        auto_offset_reset="earliest",
        state_dir=job.scratch,
        consumer_extra_config=FETCH,
        loglevel="WARNING",
    )
    topic = app.topic(
        job.topic,
        key_deserializer="str",
        value_deserializer=Avro(),
        config=TopicConfig(num_partitions=4, replication_factor=1),
    )
    frame = app.dataframe(topic)
    frame.apply(_counter(meter, counts), stateful=True, metadata=True)
    app.run(count=job.events)
    meter.stop()
    meter.report(counts)


def _counter(meter: Meter, counts: dict[str, int]) -> Callable[..., None]:
    def one(event: dict[str, Any], key: str, timestamp: int, headers: object, state: State) -> None:  # noqa: ARG001
        if not meter.seen:
            meter.start()
        n = state.get("n", 0) + 1
        state.set("n", n)
        counts[key] = n
        meter.add(1)

    return one


if __name__ == "__main__":
    count(job())
