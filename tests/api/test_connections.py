"""A door that no number of connections shuts: who gives way, who never does. Real sockets, of several addresses."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from prometheus_client import CollectorRegistry

from rillfold.http import turn_away, wire
from rillfold.http.connections import Connections, peer_of
from rillfold.http.hosts import known_hosts
from rillfold.http.operator import Operator
from rillfold.http.turn_away import Linger
from rillfold.workers import listener as worker
from rillfold.workers.listener import Answers, listening
from tests.support.raw_http import get, status, talk

ADDRESSES = ("127.0.0.2", "127.0.0.1")
KEPT = get("/health").replace(b"close", b"keep-alive")


@asynccontextmanager
async def opened(url: str, count: int, said: bytes = b"", source: str = "127.0.0.1") -> AsyncIterator[list]:
    """So many connections that say this and no more, in the order of their opening."""
    found = urlsplit(url)
    async with AsyncExitStack() as leaving:
        streams = list[tuple[asyncio.StreamReader, asyncio.StreamWriter]]()
        for _ in range(count):
            streams.append(await asyncio.open_connection(found.hostname, found.port, local_addr=(source, 0)))
            leaving.callback(streams[-1][1].close)
            streams[-1][1].write(said)
        yield streams


async def ended(reader: asyncio.StreamReader, seconds: float = 5.0) -> bool:
    """Whether the server ends it."""
    try:
        async with asyncio.timeout(seconds):
            with suppress(ConnectionError):
                while await reader.read(65536):
                    pass
            return True
    except TimeoutError:
        return False


class Slow:
    """A read model that answers when it is let."""

    def __init__(self) -> None:
        self.asked, self.let = asyncio.Event(), asyncio.Event()

    async def row(self, *_: object) -> None:
        self.asked.set()
        await self.let.wait()


JOB = "/company-automation/jobs/j"


@pytest.mark.parametrize("said", [b"", b"GET /health HTTP/1.1\r\nX: "], ids=["silent", "half a head"])
async def test_a_thousand_that_say_nothing_shut_the_door_for_nobody(api, said: bytes) -> None:
    async with opened(api.url, wire.CONNECTIONS + 5, said) as streams:
        for source in ADDRESSES * 3:
            begun = time.monotonic()
            assert status(await talk(api.url, get("/health"), source=source)) == 200
            assert time.monotonic() - begun < 5
        assert all([await ended(reader) for reader, _ in streams[:5]])


async def test_the_peer_with_the_most_gives_way_and_no_other(serve, empty_log, tmp_path: Path) -> None:
    async with (
        serve(tmp_path, empty_log, connections=20) as api,
        opened(api.url, 4, KEPT, "127.0.0.2") as few,
        opened(api.url, 100) as many,
    ):
        assert all([await ended(reader) for reader, _ in many[:80]])
        for reader, writer in few:
            writer.write(get("/health"))
            answers = await asyncio.wait_for(reader.read(), 10)
            assert answers.count(b"200 OK") == 2


async def test_a_request_under_way_never_gives_way(serve, empty_log, tmp_path: Path) -> None:
    reads = Slow()
    async with (
        serve(tmp_path, empty_log, connections=10, reads=reads) as api,
        opened(api.url, 1, get(JOB, api.acme)) as ((slow, _),),
    ):
        await asyncio.wait_for(reads.asked.wait(), 10)
        async with opened(api.url, 50) as silent:
            assert all([await ended(reader) for reader, _ in silent[:40]])
            reads.let.set()
            assert status(await asyncio.wait_for(slow.read(), 10)) == 404


async def test_where_all_have_requests_under_way_a_newcomer_is_told_to_come_again(
    serve, empty_log, tmp_path: Path
) -> None:
    reads = Slow()
    async with serve(tmp_path, empty_log, connections=2, reads=reads) as api:
        asking = [asyncio.create_task(talk(api.url, get(JOB, api.acme), seconds=30)) for _ in range(2)]
        await asyncio.wait_for(reads.asked.wait(), 10)
        await asyncio.sleep(0.3)
        for source in ADDRESSES:
            answer = await talk(api.url, get("/health"), source=source)
            assert status(answer) == 503 and b"Retry-After: 1" in answer
        reads.let.set()
        assert [status(each) for each in await asyncio.gather(*asking)] == [404, 404]
        assert status(await talk(api.url, get("/health"))) == 200


async def test_a_head_that_comes_byte_by_byte_ends(api, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wire, "HEAD_SECONDS", 0.5)
    async with opened(api.url, 1, b"GET /health HTTP/1.1\r\nX: ") as ((reader, writer),):
        ending = asyncio.create_task(ended(reader, 10))
        while not ending.done():
            writer.write(b"x")
            await asyncio.sleep(0.05)
        assert await ending


async def test_who_does_not_read_gives_way_and_is_not_waited_for(
    serve, empty_log, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    unread = get("/openapi.json").replace(b"close", b"keep-alive") * 400
    async with serve(tmp_path, empty_log, connections=3) as api:
        async with asyncio.timeout(30), opened(api.url, 3, unread):
            await asyncio.sleep(0.5)
            # Until what was sent is more than the system keeps for the client, the requests are under way.
            while status(await talk(api.url, get("/health"))) != 200:  # noqa: ASYNC110
                await asyncio.sleep(0.1)
        monkeypatch.setattr(wire, "READ_SECONDS", 0.5)
        async with asyncio.timeout(30), opened(api.url, 1, unread) as ((_, writer),):
            while not writer.is_closing():
                writer.write(b"x")
                await asyncio.sleep(0.1)


async def test_who_is_turned_away_and_does_not_end_its_body_gives_way(
    serve, empty_log, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(turn_away, "STRANGER", Linger(1 << 20, 60.0))
    monkeypatch.setattr("rillfold.api.entry.STRANGER", Linger(1 << 20, 60.0))
    head = get("/projections", None, "Content-Length: 1000", method="POST")
    async with serve(tmp_path, empty_log, connections=3) as api, opened(api.url, 3, head) as streams:
        for reader, _ in streams:
            assert (await asyncio.wait_for(reader.readline(), 10)).split()[1] == b"401"
        assert status(await talk(api.url, get("/health"))) == 200


def worker_answers(stands=lambda: None) -> Answers:
    return Answers(stands, CollectorRegistry(), Operator("token", known_hosts()))


@pytest.mark.parametrize("said", [b"", b"GET /health HTTP/1.1\r\nX: "], ids=["silent", "half a head"])
async def test_a_workers_door_is_shut_for_nobody(tmp_path: Path, said: bytes) -> None:
    with listening(worker_answers(), "127.0.0.1", 0, tmp_path / "told.json") as url:
        async with opened(url, worker.CONNECTIONS + 5, said) as streams:
            for source in ADDRESSES * 3:
                assert status(await talk(url, get("/health"), source=source, seconds=5)) == 200
            assert all([await ended(reader) for reader, _ in streams[:5]])


async def test_a_workers_request_under_way_never_gives_way(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker, "CONNECTIONS", 2)
    asked, let = threading.Semaphore(0), threading.Event()

    def stands() -> None:
        asked.release()
        let.wait(30)

    with listening(worker_answers(stands), "127.0.0.1", 0, tmp_path / "told.json") as url:
        first = asyncio.create_task(talk(url, get("/ready"), seconds=30))
        assert await asyncio.to_thread(asked.acquire, timeout=10)
        async with opened(url, 5) as silent:
            assert all([await ended(reader) for reader, _ in silent[:4]])
            second = asyncio.create_task(talk(url, get("/ready"), seconds=30))
            assert await asyncio.to_thread(asked.acquire, timeout=10)
        answer = await talk(url, get("/health"))
        assert status(answer) == 503 and b"Retry-After: 1" in answer
        let.set()
        assert [status(each) for each in await asyncio.gather(first, second)] == [200, 200]
        assert status(await talk(url, get("/health"))) == 200


async def test_a_workers_head_that_comes_byte_by_byte_ends(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker, "IDLE_SECONDS", 0.5)
    with listening(worker_answers(), "127.0.0.1", 0, tmp_path / "told.json") as url:
        async with opened(url, 1, b"GET /health HTTP/1.1\r\nX: ") as ((reader, writer),):
            ending = asyncio.create_task(ended(reader, 10))
            while not ending.done():
                writer.write(b"x")
                await asyncio.sleep(0.05)
            assert await ending


def test_who_gives_way() -> None:
    gone, clock = list[str](), [0.0]
    connections = Connections[str](4, gone.append, lambda: clock[0])
    for name, address in (("a1", "a"), ("a2", "a"), ("b1", "b"), ("a3", "a")):
        clock[0] += 1
        assert connections.enter(name, address)
    connections.waits("a1")  # it did: it is no newer for that
    connections.works("a2")
    assert connections.enter("b2", "b") and gone == ["a1"]
    for name in ("a3", "b1", "b2"):
        connections.works(name)
    assert not connections.enter("c1", "c")
    connections.waits("b1")
    connections.waits("a1")  # it left long ago
    assert connections.enter("c1", "c") and gone == ["a1", "b1"]
    clock[0] += 10
    connections.end_overdue(5)
    assert gone == ["a1", "b1", "c1"]
    assert connections.enter("d1", "d") and gone == ["a1", "b1", "c1"]


def test_whose_share_it_is() -> None:
    assert peer_of("2001:db8::1") == peer_of("2001:db8::ffff:2") != peer_of("2001:db8:0:1::1")
    assert peer_of("::ffff:10.0.0.1") == peer_of("10.0.0.1") != peer_of("10.0.0.2")
    assert peer_of("fe80::1%eth0") == peer_of("fe80::2")
    assert peer_of("") == ""
