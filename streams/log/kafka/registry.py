"""Confluent's schema registry: ids in records to our stored schemas, and our schemas into the registry."""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Self, TypeVar

import httpx
import msgspec
from confluent_kafka.schema_registry import Schema, SchemaRegistryClient
from confluent_kafka.schema_registry.error import SchemaRegistryError

from schemas.codec.catalog import StoredEvent, catalog
from schemas.codec.codec import schema_id
from schemas.codec.compat import record_of
from schemas.topics import TOPIC_OF, TopicNames
from streams.errors import NAMED, RETRY_SECONDS, RegistryDown, RegistryRefused
from streams.log.port import Learn

log = logging.getLogger(__name__)
T = TypeVar("T")

UNKNOWN_ID = 40403
MAX_ID = (1 << 31) - 1
"""A registry's ids are Java's `int`: what is above is nobody's, and asking for it gets answers that say nothing."""
UNKNOWN_FOR = 1.0
"""Seconds for which an id that the registry does not know is not asked for again: it may be given out at any time."""
SIDE_BY_SIDE = 8
ASKED = 64
"""New ids of one batch of records that are asked for one by one. Of more the registry's list says which are there."""
LISTED_FOR = 10
"""A list stands so many times as long as it took to read."""
REMEMBERED = 1 << 16


PAGE = 1_000
"""As many as Confluent's answers at once."""
NO_LIST = (
    "The registry at %s has no list of its schemas (GET /schemas answered %d). Where a fetch has many ids that are "
    "new, one that lies above %d ids that nobody has is not asked for, and its records are refused as unknown_schema."
)


class _Listed(msgspec.Struct):
    """One version of one subject."""

    id: int
    schema: str
    schemaType: str = "AVRO"
    subject: str = ""
    version: int = 0


class Registry:
    """Asks once for each id. What it knows goes on working while the registry is down.

    Anybody can make up ids. Of many at once the list of all schemas says which are there; those above it may be new,
    and registries count upwards: the lowest are asked for first, until none is there any more. That is a few answers'
    time for a batch, whatever stands in it.
    """

    def __init__(
        self,
        url: str,
        timeout: float = 5.0,
        clock: Callable[[], float] = time.monotonic,
        ids: dict[int, StoredEvent] | None = None,
    ) -> None:
        self.url = url
        self.ids: dict[int, StoredEvent] = {} if ids is None else ids
        self._unknown: dict[int, float] = {}
        """Ids that are not ours, and when to ask for them again."""
        self._highest, self._listed_until = 0, -math.inf
        self._clock = clock
        self._http = httpx.Client(timeout=timeout)
        self._client = SchemaRegistryClient({"url": url, "timeout": timeout, "max.retries": 0})

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._client.__exit__()
        self._http.close()

    def resolve(self, values: Iterable[bytes | None]) -> Mapping[int, StoredEvent]:
        """The ids for `schemas.codec.codec.decode`. Raises RegistryDown, a Retry, where one cannot be asked for."""
        numbers = {number for value in values if (number := schema_id(value)) is not None}
        now = self._clock()
        new = [n for n in numbers if n <= MAX_ID and n not in self.ids and now >= self._unknown.get(n, 0.0)]
        if len(new) == 1:
            self._ask(new[0])
        elif new:
            listed = self._from_list() if len(new) > ASKED else 0
            self._ask_all(sorted(n for n in new if n > listed))
        return self.ids

    def register(self, names: TopicNames) -> Mapping[str, int]:
        """Every stored schema under `topic-record` (TopicRecordNameStrategy), oldest first; subject to newest id."""
        subjects: dict[str, int] = {}
        for entry in sorted(catalog().by_kind.values(), key=lambda entry: entry.kind):
            subject = f"{names.wire(TOPIC_OF[entry.cls].name)}-{entry.source['namespace']}.{entry.source['name']}"
            schema = Schema(msgspec.json.encode(entry.source).decode(), "AVRO")
            subjects[subject] = self._call(lambda: self._client.register_schema(subject, schema), subject)  # noqa: B023
            self.ids[subjects[subject]] = entry
        return subjects

    def _from_list(self) -> int:
        """The highest id that was given out: what is ours or another's up to it is known now, and the rest nobody's."""
        if (began := self._clock()) >= self._listed_until:
            self._highest, offset = 0, 0
            before: Sequence[_Listed] = ()
            while (page := self._page(offset)) and page != before:  # some answer all of it, whatever is asked for
                for each in page:
                    self._highest = max(self._highest, each.id)
                    if each.id not in self.ids and self._unknown.get(each.id) != math.inf:
                        self._note(each.id, Schema(each.schema, each.schemaType))
                offset, before = offset + len(page), page
            now = self._clock()
            self._listed_until = now + LISTED_FOR * (now - began)
        return self._highest

    def _page(self, offset: int) -> Sequence[_Listed]:
        """Nothing where the registry has no list."""
        try:
            answer = self._http.get(f"{self.url}/schemas", params={"deleted": "true", "offset": offset, "limit": PAGE})
            told = msgspec.json.decode(answer.content, type=list[_Listed] if answer.is_success else dict[str, object])
        except (httpx.HTTPError, ValueError) as error:
            raise RegistryDown(self.url, "the list of schemas", error) from error
        if isinstance(told, list):
            return told
        if answer.status_code >= 500 or answer.status_code == 429:
            raise RegistryDown(self.url, "the list of schemas", ValueError(f"{answer.status_code} {told}"))
        log.warning(NO_LIST, self.url, answer.status_code, ASKED, extra=NAMED)
        return ()

    def _ask_all(self, numbers: Sequence[int]) -> None:
        """Where one gets no answer, the rest is not asked for; nor where so many in a row are not there."""
        with ThreadPoolExecutor(SIDE_BY_SIDE) as pool:
            strange = 0
            for start in range(0, len(numbers), SIDE_BY_SIDE):
                there = list(pool.map(self._ask, numbers[start : start + SIDE_BY_SIDE]))
                strange = 0 if any(there) else strange + len(there)
                if strange >= ASKED:
                    return

    def _ask(self, number: int) -> bool:
        """Whether it is there, be it ours or another's: that is asked once."""
        try:
            schema = self._call(lambda: self._client.get_schema(number), f"schema id {number}")
        except SchemaRegistryError:
            schema = None
        self._note(number, schema)
        return schema is not None

    def _note(self, number: int, schema: Schema | None) -> None:
        if (entry := _ours(schema)) is not None:
            self.ids[number] = entry
            return
        if len(self._unknown) >= REMEMBERED:
            self._unknown.clear()
        # What an id stands for never changes.
        self._unknown[number] = self._clock() + UNKNOWN_FOR if schema is None else math.inf

    def _call(self, call: Callable[[], T], what: str) -> T:
        """Lets only the registry's own "no such schema" through as it is: anything else says nothing about a record."""
        try:
            return call()
        except SchemaRegistryError as error:
            if error.error_code == UNKNOWN_ID:
                raise
            if error.http_status_code in (401, 403, 409, 422):
                raise RegistryRefused(self.url, what, error) from error
            raise RegistryDown(self.url, what, error) from error
        except (httpx.HTTPError, ValueError, OSError) as error:
            raise RegistryDown(self.url, what, error) from error


def learner(url: str) -> Learn:
    """What a log asks before it hands records out: holds them until each id is known to be ours, or nobody's."""
    registry = Registry(url, ids=catalog().by_id)

    async def learn(values: Iterable[bytes | None]) -> None:
        asking = [value for value in values if schema_id(value) is not None]
        if not asking:
            return
        while True:
            try:
                await asyncio.to_thread(registry.resolve, asking)
                return
            except RegistryDown as error:
                log.warning("%s", error)
                await asyncio.sleep(RETRY_SECONDS)

    return learn


def _ours(schema: Schema | None) -> StoredEvent | None:
    """By fingerprint: names, types and order of fields are the same, whatever docs and extra attributes it carries."""
    if schema is None or schema.schema_type not in (None, "AVRO"):
        return None
    try:
        fingerprint = bytes.fromhex(record_of((schema.schema_str or "").encode()).fingerprint)
    except Exception:
        return None
    return catalog().by_fingerprint.get(fingerprint)
