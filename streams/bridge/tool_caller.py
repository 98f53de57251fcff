"""One call of a tool: gate, credential, address, exchange, retries. In this order, and every end of it is a Reply."""

from __future__ import annotations

import asyncio
import hashlib
import logging
import ssl
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any, NamedTuple

import msgspec

from processors import gate
from processors.gate import Denied, Offer
from schemas.company import ToolRegistered, ToolUse
from schemas.errors import Poison
from schemas.tools import ToolCallProposed
from streams.bridge import endpoint
from streams.bridge.credentials import authorization, without
from streams.bridge.endpoint import ToolReply
from streams.bridge.lookups import Lookups
from streams.bridge.secrets import FileSecrets, SecretStr
from streams.bridge.signing import NO_KINDS, AuthKind, signed
from streams.errors import NameUnanswered
from streams.fairness.turns import Turns

log = logging.getLogger(__name__)

FIRST_PAUSE_SECONDS, LONGEST_PAUSE_SECONDS = 0.2, 10.0
PATIENCE_SECONDS = 120.0
# At one endpoint, from its first try to its answer; and of exchanges under way, of one company and of all.
ENDPOINT_CALLS, COMPANY_EXCHANGES, ALL_EXCHANGES = 4, 16, 256
REASON_CHARS = 1_000

Registered = Callable[[str, str], ToolRegistered | None]
"""A company and a tool's name to what the log says of it now."""
WITHDRAWN = ToolReply(False, None, "", "withdrawn: its job was taken back before the tool answered")


def never_withdrawn(_: ToolCallProposed) -> bool:
    return False


class Prepared(NamedTuple):
    """A call that may go out: all that is known of it before an address is looked up."""

    tool: ToolRegistered
    secret: SecretStr | None
    headers: Mapping[str, str]
    arguments: Mapping[str, Any]


class Caller:
    """What one company's APIs do, or do not, holds up nobody else's calls."""

    def __init__(
        self,
        secrets: FileSecrets,
        registered: Registered,
        *,
        private: bool,
        patience: float = PATIENCE_SECONDS,
        trust: ssl.SSLContext | None = None,
        lookups: Lookups | None = None,
        withdrawn: Callable[[ToolCallProposed], bool] = never_withdrawn,
        kinds: Mapping[str, AuthKind] = NO_KINDS,
        clock: Callable[[], int] = int,
    ) -> None:
        """`withdrawn` says of a call whether its job was taken back. `kinds`, which are told the time by `clock`: what
        an application adds to ours."""
        self._kinds, self._clock = kinds, clock
        self._secrets, self._registered, self._withdrawn = secrets, registered, withdrawn
        self._private, self._patience = private, patience
        self._lookups = lookups or Lookups()
        self._trust = trust
        self._endpoints, self._companies = Turns(ENDPOINT_CALLS), Turns(COMPANY_EXCHANGES)
        self._all = Turns(ALL_EXCHANGES)
        # Schemas are checked beside the loop, one of a company at a time.
        self._checks = Turns(1)

    async def __aenter__(self) -> Caller:
        self._http = endpoint.client(self._trust)
        self._checker = ThreadPoolExecutor(1, thread_name_prefix="gate")
        return self

    async def __aexit__(self, *_: object) -> None:
        self._checker.shutdown(wait=False, cancel_futures=True)
        await self._http.aclose()

    async def call(self, call: ToolCallProposed) -> ToolReply:
        try:
            reply = await self._in_turn(call)
        except Poison as error:
            reply = ToolReply(False, None, "", f"refused: {error}")
        except Exception as error:
            # Its text may hold what must not be shown.
            log.error("Call %s of %s ended in %s.", ascii(call.call), call.company, type(error).__name__)
            reply = ToolReply(False, None, "", f"failed: {type(error).__name__} in the bridge")
        return reply._replace(reason=reply.reason[:REASON_CHARS])

    async def _in_turn(self, call: ToolCallProposed) -> ToolReply:
        if self._withdrawn(call):
            return WITHDRAWN
        prepared = await self._prepare(call)
        if isinstance(prepared, ToolReply):
            return prepared
        place = call.company, prepared.tool.endpoint
        if not await self._endpoints.enter(place, self._patience):
            return ToolReply(False, None, "", f"busy: no call before it got through within {self._patience:g} s")
        try:
            return await self._attempts(call, prepared)
        finally:
            self._endpoints.leave(place)

    async def _attempts(self, call: ToolCallProposed, prepared: Prepared) -> ToolReply:
        """Under one key, until it is answered for good or patience ends; the last try is when it ends."""
        clock = asyncio.get_running_loop().time
        place, until, pause = (call.company, prepared.tool.endpoint), clock() + self._patience, FIRST_PAUSE_SECONDS
        while True:
            if self._withdrawn(call):
                return WITHDRAWN
            if self._registered(call.company, call.tool) is not prepared.tool:
                # Revoked or registered anew while it waited: it is judged again.
                anew = await self._prepare(call)
                if isinstance(anew, ToolReply):
                    return anew
                prepared = anew
            reply = await self._exchange(call.company, prepared)
            if not reply.again:
                self._endpoints.proven(place)
                return reply
            if (left := until - clock()) <= 0:
                return reply
            await asyncio.sleep(min(pause, left))
            pause = min(pause * 2, LONGEST_PAUSE_SECONDS)

    async def _exchange(self, company: str, prepared: Prepared) -> ToolReply:
        tool = prepared.tool
        async with self._companies.turn(company), self._all.turn(None):
            try:
                # Resolved anew each time: an address that changed is checked again.
                pinned = await endpoint.pin(tool.endpoint, self._private, partial(self._lookups.find, company))
            except NameUnanswered as error:
                return ToolReply(False, None, "", f"unreachable: {error}", again=True)
            request = endpoint.request_of(tool.method, pinned, prepared.arguments, prepared.headers)
            made = dict[str, str]()
            if kind := self._kinds.get(tool.auth.kind):
                made = signed(kind, prepared.secret, request, pinned.server_name, self._clock())
                request.headers.update(made)
            reply = await endpoint.exchange(self._http, request)
        # What stands in for a credential may be longer than it.
        return endpoint.within(reply._replace(body=without(prepared.secret, reply.body, made.values())))

    async def _prepare(self, call: ToolCallProposed) -> Prepared | ToolReply:
        tool = self._registered(call.company, call.tool)
        async with self._checks.turn(call.company):
            verdict = await asyncio.get_running_loop().run_in_executor(self._checker, _judged, call, tool)
        if isinstance(verdict, Denied):
            return ToolReply(False, None, "", f"denied: {verdict.reason}: {verdict.detail}")
        assert tool is not None
        secret = None
        if tool.auth.kind != "none" and tool.auth.secret_ref is not None:
            secret = self._secrets.get(call.company, endpoint.origin_of(tool.endpoint), tool.auth.secret_ref)
        headers = {
            "Idempotency-Key": key_of(call.company, call.call),
            "User-Agent": "rillfold",
            **({} if tool.auth.kind in self._kinds else authorization(tool.auth, secret)),
        }
        return Prepared(tool, secret, headers, msgspec.json.decode(verdict.arguments))


def key_of(company: str, call: str) -> str:
    """The idempotency key of a call: the same at every try, and no other company's whatever its calls are named."""
    return hashlib.sha256(msgspec.json.encode((company, call))).hexdigest()


def _judged(call: ToolCallProposed, tool: ToolRegistered | None) -> gate.Allowed | Denied:
    try:
        offers = {tool.name: Offer(name=tool.name, parameters=gate.parameters_of(tool))} if tool else {}
    except Poison as error:
        return Denied(reason="unusable_schema", detail=str(error))
    return gate.check(ToolUse(name=call.tool, arguments=call.arguments), offers)
