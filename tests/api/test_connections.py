"""A door that no number of connections shuts: who gives way, who never does. Real sockets, of several addresses."""

from __future__ import annotations

import asyncio
import socket
import threading
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, ExitStack, asynccontextmanager, contextmanager, suppress
from pathlib import Path
from urllib.parse import urlsplit

import pytest
import uvicorn
from prometheus_client import CollectorRegistry, Gauge

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


@asynccontextmanager
async def one_answer(length: int, connections: int = 10) -> AsyncIterator[str]:
    """A server whose only answer is so long, sent at once, most of which stays with the server until it is read."""

    async def app(_scope, _receive, send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"%d" % length)]})
        await send({"type": "http.response.body", "body": b"x" * length})

    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
        server = uvicorn.Server(uvicorn.Config(app, log_level="error", lifespan="off", **wire.wire(connections)))
        serving = asyncio.create_task(server.serve([listener]))
        while not server.started:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
        try:
            yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        finally:
            server.should_exit = server.force_exit = True
            await serving


@contextmanager
def narrow(url: str, said: bytes, kept: int = 2048) -> Iterator[socket.socket]:
    """A client for which the system keeps so little: what it leaves unread stays with the server."""
    found = urlsplit(url)
    with socket.socket() as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, kept)
        client.settimeout(10)
        client.connect((found.hostname, found.port))
        client.setblocking(False)
        with suppress(BlockingIOError):
            client.send(said)
        yield client


async def read_on(client: socket.socket, length: int, at_once: int, pause: float = 0.05) -> int:
    """How much of so much it gets, at that pace."""
    got, loop = 0, asyncio.get_running_loop()
    with suppress(ConnectionError):
        while got < length and (more := await loop.sock_recv(client, at_once)):
            got += len(more)
            await asyncio.sleep(pause)
    return got


@pytest.mark.parametrize("length", [40_000, 200_000], ids=["all of it in hand", "more than is kept"])
async def test_who_reads_slowly_and_steadily_is_waited_for(length: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wire, "HEAD_SECONDS", 1.0)
    monkeypatch.setattr(wire, "READ_SECONDS", 1.0)
    async with one_answer(length) as url:
        with narrow(url, get("/")) as client:
            begun = time.monotonic()
            assert await read_on(client, length, at_once=length // 50) > length
            assert time.monotonic() - begun > 2


@pytest.mark.parametrize("length", [40_000, 400_000], ids=["all of it in hand", "more than is kept"])
async def test_who_leaves_a_whole_answer_unread_is_not_waited_for(length: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wire, "READ_SECONDS", 0.5)
    async with one_answer(length) as url:
        with narrow(url, get("/")) as client:
            await asyncio.sleep(2)
            assert await read_on(client, length, at_once=65536, pause=0) < length


async def test_who_reads_an_answer_stays_where_silent_ones_of_its_address_come() -> None:
    async with one_answer(2 << 20, connections=5) as url:
        with narrow(url, get("/"), 32768) as client:
            reading = asyncio.create_task(read_on(client, 2 << 20, at_once=40_000))
            await asyncio.sleep(0.2)
            async with opened(url, 30) as silent:
                assert all([await ended(reader) for reader, _ in silent[:20]])
                assert not reading.done()
                assert await reading > 2 << 20


async def test_of_those_with_an_answer_to_read_who_reads_nothing_gives_way() -> None:
    async with one_answer(2 << 20, connections=3) as url, AsyncExitStack() as leaving:
        client = leaving.enter_context(narrow(url, get("/"), 32768))
        reading, came = asyncio.create_task(read_on(client, 2 << 20, at_once=40_000)), 0
        while not reading.done():
            leaving.enter_context(narrow(url, get("/")))
            await asyncio.wait([reading], timeout=0.6)
            came += 1
        assert await reading > 2 << 20
        assert came > 3


def worker_answers(stands=lambda: None, registry: CollectorRegistry | None = None) -> Answers:
    return Answers(stands, registry or CollectorRegistry(), Operator("token", known_hosts()))


def many_figures() -> CollectorRegistry:
    """More than the system keeps for a client."""
    registry = CollectorRegistry()
    Gauge("much", "x" * (8 << 20), registry=registry)
    return registry


async def test_who_reads_no_answer_of_a_worker_gives_way(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker, "CONNECTIONS", 5)
    answers = worker_answers(registry=many_figures())
    with listening(answers, "127.0.0.1", 0, tmp_path / "told.json") as url, ExitStack() as leaving:
        for _ in range(worker.CONNECTIONS):
            leaving.enter_context(narrow(url, get("/metrics")))
        await asyncio.sleep(1)
        for source in ADDRESSES * 3:
            assert status(await talk(url, get("/health"), source=source)) == 200
            leaving.enter_context(narrow(url, get("/metrics")))
            await asyncio.sleep(0.3)


async def test_who_reads_an_answer_of_a_worker_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker, "CONNECTIONS", 5)
    answers = worker_answers(registry=many_figures())
    with (
        listening(answers, "127.0.0.1", 0, tmp_path / "told.json") as url,
        narrow(url, get("/metrics"), 65536) as client,
    ):
        reading = asyncio.create_task(read_on(client, 8 << 20, at_once=1 << 17))
        await asyncio.sleep(0.5)
        async with opened(url, 30) as silent:
            assert all([await ended(reader) for reader, _ in silent[:20]])
            assert not reading.done()
            assert await reading > 8 << 20


@pytest.mark.parametrize("at_once", [0, 2_000], ids=["unread", "read in drops"])
async def test_an_answer_of_a_worker_ends(tmp_path: Path, at_once: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker, "IDLE_SECONDS" if not at_once else "ANSWER_SECONDS", 1.0)
    answers = worker_answers(registry=many_figures())
    with (
        listening(answers, "127.0.0.1", 0, tmp_path / "told.json") as url,
        narrow(url, get("/metrics"), 65536) as client,
    ):
        if at_once:
            with suppress(TimeoutError):
                async with asyncio.timeout(3):
                    await read_on(client, 8 << 20, at_once)
        else:
            await asyncio.sleep(3)
        assert await read_on(client, 8 << 20, at_once=1 << 20, pause=0) < 8 << 20


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
    connections = Connections[str](4, gone.append, lambda _: 0, lambda: clock[0])
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


def test_who_gives_way_of_those_with_an_answer_to_read() -> None:
    gone, clock, unread = list[str](), [0.0], Counter[str]()
    connections = Connections[str](4, gone.append, unread.__getitem__, lambda: clock[0])

    def enter(name: str) -> list[str]:
        clock[0] += 1
        assert connections.enter(name, "a")
        return gone

    unread.update(a1=30, a2=20, a4=10)
    for name in ("a1", "a2", "a3", "a4"):
        enter(name)
    assert enter("a5") == ["a3"]
    unread.update(a5=10)
    connections.waits("a5")  # an answer came: it is there to be read
    unread["a1"], unread["a4"] = 29, 11  # more came, of which nothing was read
    assert enter("a6") == ["a3", "a2"]
    unread.update(a6=10)
    connections.waits("a6")
    assert enter("a7") == ["a3", "a2", "a4"]
    assert connections.waited("a1") == 1 and connections.waited("a4") == 0
    unread["a1"] = 28
    assert connections.waited("a1") == 0
    clock[0] += 5
    unread["a1"] = 27
    connections.end_overdue(5)
    assert gone == ["a3", "a2", "a4", "a5", "a6", "a7"]


def test_whose_share_it_is() -> None:
    assert peer_of("2001:db8::1") == peer_of("2001:db8::ffff:2") != peer_of("2001:db8:0:1::1")
    assert peer_of("::ffff:10.0.0.1") == peer_of("10.0.0.1") != peer_of("10.0.0.2")
    assert peer_of("fe80::1%eth0") == peer_of("fe80::2")
    assert peer_of("") == ""
