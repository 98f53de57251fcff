"""A table agent as Faust's own documentation writes it: RocksDB, changelog, default settings."""

import os
from typing import Any

import faust
from faust.serializers import codecs

from bench.peers.avro_dict import decoder
from bench.peers.meter import Job, Meter, job


class Avro(codecs.Codec):
    def _loads(self, s: bytes) -> Any:
        return DECODE(s)


DECODE = decoder()


def build(job: Job) -> faust.App:
    codecs.register("single-object", Avro())
    app = faust.App(
        job.id,
        broker=f"kafka://{job.bootstrap}",
        store="rocksdb://?driver=rocksdict",
        datadir=job.scratch,
        consumer_auto_offset_reset="earliest",
        topic_partitions=4,
        topic_replication_factor=1,
        web_enabled=False,
    )
    source = app.topic(job.topic, key_type=str, key_serializer="raw", value_serializer="single-object")
    counts, meter = app.Table("counts", default=int, partitions=4), Meter(job.events)

    @app.agent(source)
    async def count(stream: Any) -> None:
        async for key, _event in stream.items():
            if not meter.seen:
                meter.start()
            counts[key] += 1
            if meter.add(1):
                meter.stop()
                meter.report(dict(counts.items()))
                os._exit(0)

    return app


if __name__ == "__main__":
    worker = faust.Worker(build(job()), loglevel="error", redirect_stdouts=False)
    worker.execute_from_commandline()
