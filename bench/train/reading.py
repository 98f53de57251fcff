"""A company's records among a million of everybody's: its own stretches, remembered, against the whole topic.

Only the reading: what is fetched, whose it is, and the company's own events decoded.
"""

import asyncio
import time
from collections.abc import Callable, Collection

from bench.events import Workload, event, producer
from bench.harness import Figures, Ratio
from bench.log import log
from bench.part import Found, Part, beside, together
from bench.train.scene import Scene
from schemas.codec.codec import encode
from schemas.topics import TopicNames
from streams.history.places import Places
from streams.history.whose import Owner
from streams.log.kafka.log import KafkaLog
from streams.log.port import TopicSpec

EVENTS, STRETCHES, SHARE = 1_000_000, 20, 100
"""One event in `SHARE` is the company's."""
TOPIC, COMPANY = "company-data", "company-000"
OTHERS = [f"company-{number:03d}" for number in range(1, 50)]
SHARE_OF, FETCHED_OF = "{}: share decoded", "{}: share fetched"
KNOWN, BARE = "its stretches, known", "the whole topic"


def in_stretches(number: int) -> bool:
    every = EVENTS // STRETCHES
    return number % every < every // SHARE


def interleaved(number: int) -> bool:
    return number % SHARE == 0


def run(scene: Scene, keys: Collection[str]) -> Found:
    found = []
    with log("reading") as bootstrap:
        for key in [key for key in LAYOUTS if key in keys or SHARE_OF.format(key) in keys]:
            asyncio.run(fill(bootstrap, _names(key).wire(TOPIC), LAYOUTS[key]))
            found.append(_read_both(scene, bootstrap, key))
    return together(found)


def _read_both(scene: Scene, bootstrap: str, key: str) -> Found:
    names, places = _names(key), Places(scene.root / key)
    asyncio.run(read(bootstrap, names, places))  # a build before this one
    ours, bare = f"{KNOWN}, {key}", f"{BARE}, {key}"
    contestants: dict[str, Callable[[int], Figures]] = {
        ours: lambda _: asyncio.run(read(bootstrap, names, places)),
        bare: lambda _: asyncio.run(read(bootstrap, names, Places())),
    }
    ratios = {key: Ratio("cpu_s", ours, bare), f"{key} by the clock": Ratio("seconds", ours, bare)}
    found = beside(key, contestants, ratios, scene)
    read_of = found.results[ours]
    shares = {SHARE_OF.format(key): read_of["decoded"], FETCHED_OF.format(key): read_of["fetched"]}
    return found._replace(costs={name: count / EVENTS for name, count in shares.items()})


def _names(key: str) -> TopicNames:
    return TopicNames(f"bench-{key.replace(' ', '-')}-")


async def read(bootstrap: str, names: TopicNames, places: Places) -> Figures:
    topic, owner, fetched, decoded = names.wire(TOPIC), Owner(COMPANY, names, {}), 0, 0
    began, cpu = time.perf_counter(), time.process_time()
    async with KafkaLog(bootstrap) as events:
        end = (await events.ends(topic))[0]
        async for batch in places.read(events, topic, 0, 0, end, COMPANY):
            fetched += len(batch)
            for record in batch:
                if owner.may_own(record):
                    owner.read(record)
                    decoded += 1
    if decoded < EVENTS // SHARE:
        raise SystemExit(f"{topic}: {decoded} of {EVENTS // SHARE} events were found")
    took = {"seconds": time.perf_counter() - began, "cpu_s": time.process_time() - cpu}
    return took | {"fetched": fetched, "decoded": decoded}


async def fill(bootstrap: str, topic: str, owns: Callable[[int], bool]) -> None:
    async with KafkaLog(bootstrap) as events:
        await events.create([TopicSpec(topic, 1, {"retention.ms": "-1"})])
    value = encode(event(Workload(), 1, 0))
    async with producer(bootstrap) as sends:
        batch = sends.create_batch()
        for number in range(EVENTS):
            key = f"{COMPANY if owns(number) else OTHERS[number % len(OTHERS)]}/{number}".encode()
            if batch.append(key=key, value=value, timestamp=None) is None:
                await sends.send_batch(batch, topic, partition=0)
                batch = sends.create_batch()
                batch.append(key=key, value=value, timestamp=None)
        await sends.send_batch(batch, topic, partition=0)
        await sends.flush()


LAYOUTS = {"reading": in_stretches, "reading interleaved": interleaved}
PARTS = [Part("reading", (*LAYOUTS, *map(SHARE_OF.format, LAYOUTS)), run)]
