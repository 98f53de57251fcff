"""From a proposed call to the company's own API and back. The only process that opens tool credentials.

The order of a batch: 1. poll, 2. catch up on the tools and on what was answered, 3. call what is not answered yet,
4. append the answers and wait for their ack, 5. commit. A crash before 4 calls again under the same idempotency key; a
crash before 5 finds the answer in the log and does not call.
"""

from __future__ import annotations

import asyncio
import base64
from collections import defaultdict, deque
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress

import msgspec

from processors import gate
from processors.gate import Denied, Offer
from schemas.codec import decode
from schemas.company import ToolAuth, ToolRegistered, ToolUse
from schemas.envelope import Event, Origin, caused_by
from schemas.errors import Poison
from schemas.rejected import Rejected
from schemas.tools import ToolCallProposed, ToolReturned
from schemas.topics import TOPIC_OF, TopicNames
from schemas.words import shortened
from streams import endpoint
from streams.dead_letter import dead_letter
from streams.endpoint import Reply
from streams.errors import Fenced
from streams.fold import Refused
from streams.log import EventLog, Record, Subscription, TopicPartition
from streams.outgoing import to_outgoing
from streams.secrets import SecretStore, SecretStr
from streams.standing import Standing
from streams.tail import Tail
from streams.tools import Tools
from streams.watch import Counts

GROUP = "rillfold-tool-bridge"
BATCH = 64
ATTEMPTS = 3
FIRST_PAUSE_SECONDS = 0.2
# One company's slow API holds this many calls at a time, not everybody's.
COMPANY_CALLS, ALL_CALLS = 4, 16
# A repeat of a call is known by its answer in the log, looked for this far back and among this many.
LOOK_BACK_MS = 3_600_000
REMEMBERED = 100_000

Key = tuple[str, str]
Batch = Mapping[TopicPartition, Sequence[Record]]


class ToolBridge:
    """One member of the bridge's consumer group. `clock` gives microseconds."""

    def __init__(
        self,
        log: EventLog,
        names: TopicNames,
        secrets: SecretStore,
        clock: Callable[[], int],
        *,
        private: bool = False,
        group: str = GROUP,
    ) -> None:
        self._log = log
        self._names = names
        self._group = f"{names.prefix}{group}"
        self._clock = clock
        self._tools = Tools(log, names)
        self._answered = Answered(log, names)
        self.standing = Standing()
        self._caller = Caller(secrets, private, self.standing.beat)
        self.calls = 0
        """Answered so far."""

    async def run(self, stop: asyncio.Event, joined: Callable[[], None] = lambda: None) -> None:
        """`joined` is called once, when the group's first answer is there."""
        topic = self._names.wire(TOPIC_OF[ToolCallProposed].name)
        async with self._log.subscribe(self._group, (topic,)) as subscription, self._caller:
            await self.step(subscription)
            joined()
            while not stop.is_set():
                await self.step(subscription)

    async def step(self, subscription: Subscription, timeout: float = 1.0) -> int:
        batch = await subscription.poll(timeout, BATCH)
        await self.standing.found(subscription)
        if not batch:
            return 0
        calls, refused = self._decoded(batch)
        await self._tools.catch_up()
        await self._answered.catch_up(batch)
        answers = await self._call_all(self._answered.missing(calls))
        await self._log.append([to_outgoing(event, self._names) for event in (*refused, *answers)])
        self.calls += len(answers)
        done = {place: records[-1].offset + 1 for place, records in batch.items()}
        # Fenced: the new owner gets the calls again, and finds our answers in the log.
        with suppress(Fenced):
            await subscription.commit(done)
            self.standing.reached(done)
        return len(answers)

    def counts(self) -> Counts:
        return {"tool_calls": ("Calls of tools that were answered.", self.calls)}

    def _decoded(self, batch: Batch) -> tuple[list[ToolCallProposed], list[Event]]:
        calls: list[ToolCallProposed] = []
        refused: list[Event] = []
        for record in (record for records in batch.values() for record in records):
            origin = Origin(record.topic, record.partition, record.offset)
            event = decode(record.value, origin, record.timestamp, record.headers)
            if isinstance(event, ToolCallProposed):
                calls.append(event)
            else:
                wrong = event if isinstance(event, Rejected) else Rejected("wrong_topic", event.type, origin)
                refused.append(dead_letter(Refused(record, wrong)))
        return calls, refused

    async def _call_all(self, calls: Sequence[ToolCallProposed]) -> list[ToolReturned]:
        return list(await asyncio.gather(*(self._call(call) for call in calls)))

    async def _call(self, call: ToolCallProposed) -> ToolReturned:
        registered = {name: tool for name, (tool, _) in self._tools.of(call.company).items()}
        reply = await self._caller.call(call, registered.get(call.tool))
        return ToolReturned(
            **caused_by(call, "returned", self._clock()),
            call=call.call,
            job=call.job,
            tool=call.tool,
            ok=reply.ok,
            status=reply.status,
            body=shortened(reply.body),
            reason=shortened(reply.reason),
        )


class Answered:
    """Which calls have their answer in the log. tool-call and tool-result share key rule and partition numbers."""

    def __init__(self, log: EventLog, names: TopicNames) -> None:
        self._log = log
        self._topic = names.wire(TOPIC_OF[ToolReturned].name)
        self._tail = Tail(log, self._topic, self._take)
        self._known: set[Key] = set()
        self._order: deque[Key] = deque()

    async def catch_up(self, batch: Batch) -> None:
        """A partition that is new to us is read from some time before its first call: our predecessor's answers."""
        new = {partition: records[0] for (_, partition), records in batch.items()}
        starts: dict[int, int] = {}
        for partition, first in new.items():
            if partition not in self._tail.positions:
                since = await self._log.offsets_at(self._topic, max(0, first.timestamp - LOOK_BACK_MS))
                starts[partition] = since[partition]
        await self._tail.catch_up(starts)

    def missing(self, calls: Sequence[ToolCallProposed]) -> list[ToolCallProposed]:
        """Each call once, unless it is answered."""
        once = {(call.company, call.call): call for call in calls}
        return [call for key, call in once.items() if key not in self._known]

    def _take(self, record: Record) -> None:
        origin = Origin(record.topic, record.partition, record.offset)
        event = decode(record.value, origin, record.timestamp, record.headers)
        if not isinstance(event, ToolReturned) or (key := (event.company, event.call)) in self._known:
            return
        self._known.add(key)
        self._order.append(key)
        if len(self._order) > REMEMBERED:
            self._known.discard(self._order.popleft())


class Caller:
    """Gate, credential, address, exchange, retries: in this order, and every end of it is a Reply."""

    def __init__(self, secrets: SecretStore, private: bool, tried: Callable[[], None]) -> None:
        self._secrets = secrets
        self._tried = tried
        self._private = private
        self._http = endpoint.client()
        self._all = asyncio.Semaphore(ALL_CALLS)
        self._of: defaultdict[str, asyncio.Semaphore] = defaultdict(lambda: asyncio.Semaphore(COMPANY_CALLS))

    async def __aenter__(self) -> Caller:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._http.aclose()

    async def call(self, call: ToolCallProposed, tool: ToolRegistered | None) -> Reply:
        async with self._of[call.company], self._all:
            try:
                return await self._attempts(call, tool)
            except Poison as error:
                return Reply(False, None, "", f"refused: {error}")

    async def _attempts(self, call: ToolCallProposed, tool: ToolRegistered | None) -> Reply:
        offers = {tool.name: Offer(name=tool.name, parameters=gate.parameters_of(tool))} if tool else {}
        verdict = gate.check(ToolUse(name=call.tool, arguments=call.arguments), offers)
        if isinstance(verdict, Denied):
            return Reply(False, None, "", f"denied: {verdict.reason}: {verdict.detail}")
        assert tool is not None
        secret = self._secret(call.company, tool)
        headers = {"Idempotency-Key": call.call, "User-Agent": "rillfold", **authorization(tool.auth, secret)}
        arguments = msgspec.json.decode(verdict.arguments)
        for attempt in range(ATTEMPTS):
            # Resolved anew each time: an address that changed is checked again.
            pinned = await endpoint.pin(tool.endpoint, self._private)
            reply = await endpoint.exchange(self._http, endpoint.request_of(tool.method, pinned, arguments, headers))
            self._tried()
            if not reply.again or attempt == ATTEMPTS - 1:
                break
            await asyncio.sleep(FIRST_PAUSE_SECONDS * 2**attempt)
        return reply._replace(body=_without(secret, reply.body))

    def _secret(self, company: str, tool: ToolRegistered) -> SecretStr | None:
        if tool.auth.kind == "none" or tool.auth.secret_ref is None:
            return None
        return self._secrets.get(company, endpoint.origin_of(tool.endpoint), tool.auth.secret_ref)


def authorization(auth: ToolAuth, secret: SecretStr | None) -> dict[str, str]:
    if secret is None:
        return {}
    match auth.kind:
        case "bearer":
            return {"Authorization": f"Bearer {secret.reveal()}"}
        case "basic":
            return {"Authorization": "Basic " + base64.b64encode(secret.reveal().encode()).decode()}
        case "api_key":
            return {auth.header or "X-API-Key": secret.reveal()}
        case "header" if auth.header:
            return {auth.header: secret.reveal()}
    raise Poison(f"A tool's auth has kind {auth.kind!r}: bearer, basic, api_key or header (with its name) are known.")


def _without(secret: SecretStr | None, body: str) -> str:
    """A tool that repeats its credential must not carry it into the log."""
    if secret is None:
        return body
    encoded = base64.b64encode(secret.reveal().encode()).decode()
    parts = [part for part in (secret.reveal(), encoded, *secret.reveal().split(":", 1)[1:]) if part]
    for part in sorted(parts, key=len, reverse=True):
        body = body.replace(part, "[credential]")
    return body
