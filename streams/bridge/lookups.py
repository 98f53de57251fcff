"""Names of hosts to addresses, in bounded time, whatever the resolver does: nobody waits for another's names."""

import asyncio
import socket
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from ipaddress import ip_address
from typing import Any

from streams.bridge.addresses import Address
from streams.errors import NameUnanswered
from streams.fairness.turns import Turns

SECONDS = 5.0
# A thread that asks cannot be stopped: so many wait for one company's names, and so many for all.
OF_ONE, OF_ALL = 2, 64

Ask = Callable[..., Sequence[Any]]


class Lookups:
    """Threads of its own: a resolver that hangs holds up neither the loop nor whoever else needs a thread."""

    def __init__(self, ask: Ask = socket.getaddrinfo) -> None:
        self._ask = ask
        self._companies, self._all = Turns(OF_ONE), Turns(OF_ALL)

    async def find(self, company: str, host: str, port: int) -> Sequence[Address]:
        """Raises `NameUnanswered` where there is no answer now, and UnicodeError where it is no name."""
        try:
            return (ip_address(host),)
        except ValueError:
            pass
        await self._enter(company, host)
        answer = self._begun(company, host, port)
        await asyncio.wait((answer,), timeout=SECONDS)
        if not answer.done():
            raise NameUnanswered(host, f"no answer within {SECONDS:g} s")
        try:
            return [ip_address(str(entry[4][0]).partition("%")[0]) for entry in answer.result()]
        except OSError as error:
            raise NameUnanswered(host, "its name does not resolve") from error

    async def _enter(self, company: str, host: str) -> None:
        """Both turns or none, also when it is cancelled between them."""
        if not await self._companies.enter(company, SECONDS):
            raise NameUnanswered(host, "its company's other names are still being looked up")
        entered = False
        try:
            entered = await self._all.enter(None, SECONDS)
        finally:
            if not entered:
                self._companies.leave(company)
        if not entered:
            raise NameUnanswered(host, "all threads wait for names")

    def _begun(self, company: str, host: str, port: int) -> asyncio.Future[Sequence[Any]]:
        """The turns are given back when the thread ends, not when we stop waiting for it."""
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[Sequence[Any]] = loop.create_future()
        # Looked at here: nobody may be waiting for it any more.
        answer.add_done_callback(lambda done: self._given_back(company, done.exception()))

        def settle(found: Sequence[Any] | Exception) -> None:
            if isinstance(found, Exception):
                answer.set_exception(found)
            else:
                answer.set_result(found)

        def ask() -> None:
            try:
                found: Sequence[Any] | Exception = self._ask(host, port, type=socket.SOCK_STREAM)
            except Exception as error:
                found = error
            with suppress(RuntimeError):  # the loop has ended meanwhile
                loop.call_soon_threadsafe(settle, found)

        try:
            threading.Thread(target=ask, name="name-look-up", daemon=True).start()
        except RuntimeError as error:
            settle(NameUnanswered(host, f"no thread for it: {error}"))
        return answer

    def _given_back(self, company: str, _: BaseException | None) -> None:
        self._all.leave(None)
        self._companies.leave(company)
