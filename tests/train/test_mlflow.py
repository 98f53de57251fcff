"""Runs in MLflow: as the log tells of them, each once, whatever happens to MLflow or to who follows."""

from __future__ import annotations

import asyncio
import logging
import os
import ssl
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from itertools import accumulate
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from processors.training.tracked import SETTINGS, WAITING, Tracking
from rillfold import wiring
from rillfold.auto_lora import tracked
from rillfold.processes import started
from rillfold.settings import Settings, from_env, in_force
from rillfold.wiring import mlflow
from rillfold.workers import mlflow as worker
from schemas import training
from schemas.adapters import AdapterJudged, RolloutDecided
from schemas.envelope import Event
from schemas.errors import Stop
from schemas.topics import BY_NAME, TopicNames
from streams.errors import AppendFailed, ShutOut
from streams.health import watch
from streams.log.memory import MemoryLog
from streams.log.outgoing import to_outgoing
from streams.log.port import Record, TopicPartition, TopicSpec
from streams.tracking import follower as following
from streams.tracking.errors import MlflowAway
from streams.tracking.follower import GROUP, NOTES, PAUSES, TOPICS, TRIES, RunFollower
from streams.tracking.mlflow import Mlflow
from tests.support.certificates import Authority
from tests.support.events import of
from tests.support.mlflow import (
    PREFIX,
    FakeMlflow,
    FakeReplay,
    accepted,
    client,
    followed,
    log_of,
    noted,
    ready,
    requested,
    said,
    stepped,
    story,
    through,
)

REAL = os.environ.get("TEST_MLFLOW_URL")
"""A real server: `mlflow server`, and its address here."""
DOWN = httpx.ConnectError("refused")


def must_be_the_story(found: dict[str, Any]) -> None:
    assert set(found) == {"r-1", "r-2", "r-3"}, "and none for what nobody accepted"
    one, two, three = found["r-1"], found["r-2"], found["r-3"]
    assert (one["name"], one["status"]) == ("acme/desk@1", "FINISHED")
    assert one["times"] == [1_764_000_001_000, 1_764_000_008_000]
    assert one["losses"] == [(1, 2.5), (2, 1.5), (4, 0.5)], "the step that was said again is there once"
    assert one["params"].items() >= {"steps": "4", "rank": "16", "method": "lora", "base_model": "tiny"}.items()
    assert one["params"]["select"].startswith('{"origins":["synthetic"]')
    assert one["metrics"].items() >= {"held_out.after": 0.875, "gate.suites.held out.won": 7.0, "loss": 0.5}.items()
    assert one["tags"].items() >= {
        "rillfold.adapter": "acme/desk@1", "rillfold.sha256": "a" * 64, "rillfold.verdict": "better",
        "rillfold.promoted": "yes", "rillfold.rollout": "0 %: refunds too much", "rillfold.generation": "2",
        "rillfold.manifest": "d" * 64,
    }.items()  # fmt: skip
    assert one["datasets"] == ["d" * 36]
    assert (two["name"], two["status"], two["tags"]["rillfold.withdrawn"]) == ("acme/desk", "KILLED", "no more")
    assert (three["status"], three["tags"]["rillfold.reason"]) == ("FAILED", "diverged")
    assert three["params"]["settings"] == '{"nonsense":1}'


async def told_twice(there: httpx.AsyncClient, prefix: str) -> None:
    for _ in range(2):
        await followed(await log_of(story()), Mlflow(there, prefix))
        must_be_the_story(await noted(there, prefix))


async def test_the_story_is_there_once_by_the_answers_that_a_real_server_gave() -> None:
    """Told a second time, by one who knows nothing of the first, it is the same runs and the same figures."""
    async with client(replay := FakeReplay()) as there:
        await told_twice(there, PREFIX)
    assert not replay.left()


if REAL:  # by hand, and nothing to skip elsewhere: the answers above were recorded from one

    async def test_the_story_is_there_once_on_a_real_server() -> None:
        async with client(httpx.AsyncHTTPTransport(), REAL or "") as there:
            await told_twice(there, f"{uuid4()}-")


async def test_who_begins_again_goes_on_where_it_was() -> None:
    log = await log_of(story()[:3])
    async with client(fake := FakeMlflow()) as there:
        await followed(log, Mlflow(there))
        assert fake.made() == ["acme/desk"]
        fake.asked.clear()
        await followed(log, Mlflow(there))
        assert not fake.asked
        await log.append([to_outgoing(stepped("acme", "r-1", 5, 2, loss=1.0), TopicNames())])
        await followed(log, Mlflow(there))
    assert fake.made() == []
    assert "metrics" in str(fake.asked) and "params" not in str(fake.asked), (
        "of the old it knows, and says only the new"
    )


async def test_what_is_said_of_an_adapter_never_comes_before_its_run() -> None:
    """Also where the run has a thousand lines in front of it."""
    steps = [stepped("acme", "r-1", 2, step, loss=1.0) for step in range(1, 1200)]
    log = await log_of([ready("acme", "r-1", 9), requested("acme", "r-1", 0), accepted("acme", "r-1", 1), *steps])
    async with client(fake := FakeMlflow()) as there:
        await followed(log, Mlflow(there))
    assert fake.made() == ["acme/desk"]
    assert [body["run_name"] for place, body in fake.asked if place == "runs/update"] == ["acme/desk@1"]


async def test_the_second_of_an_installation_shuts_the_first_out() -> None:
    log = await log_of(story()[:2])
    async with client(FakeMlflow()) as there, log.alone("rillfold-mlflow") as first:
        follower = RunFollower(log, TopicNames(), Mlflow(there))
        await follower._recall()
        await followed(log, Mlflow(there))
        with pytest.raises(ShutOut, match="rillfold-mlflow"):
            await follower.step(first)


@pytest.mark.parametrize(
    ("fault", "why"),
    [
        (DOWN, "does not answer .*ConnectError"),
        (httpx.ReadTimeout("late"), "does not answer .*ReadTimeout"),
        (httpx.Response(200, text="<html>"), "answers .* with 200 and no JSON"),
        (httpx.Response(302), "with 302 and no JSON"),
        (httpx.Response(401, text="who?"), "with 401 and no JSON.*MLFLOW_TRACKING_TOKEN"),
        (httpx.Response(503, json={"error_code": "BUSY"}), "with 503"),
    ],
    ids=lambda it: type(it).__name__ if isinstance(it, Exception) else str(it)[:20],
)
async def test_a_server_that_is_away_is_waited_for_and_nothing_is_lost(
    fault: httpx.Response | Exception, why: str, caplog: pytest.LogCaptureFixture
) -> None:
    now, asked = 0.0, dict[float, None]()

    async def sleep(seconds: float) -> None:
        nonlocal now
        now += seconds
        await asyncio.sleep(0)

    def wrong(_place: str, _body: Any) -> httpx.Response | Exception | None:
        asked[now] = None
        return fault if now < 60 else None

    log = await log_of(story())
    async with client(fake := FakeMlflow(wrong)) as there:
        with caplog.at_level(logging.WARNING):
            follower = await followed(log, Mlflow(there), sleep=sleep)
        assert list(asked) == list(accumulate([*PAUSES, PAUSES[-1]], initial=0.0))
        now = 0.0
        with pytest.raises(MlflowAway, match=why):
            await Mlflow(there).takes_a_run("acme")
    assert follower.passed_over == 0 and len(fake.made()) == 3
    assert caplog.records[0].levelname == "WARNING"


def answered(status: int) -> httpx.Response:
    return httpx.Response(status, json={"error_code": "INTERNAL_ERROR", "message": "no"})


WRITES = ("runs/create", "runs/log-batch", "runs/update", "runs/log-inputs", "artifact")


@pytest.mark.parametrize(
    ("fault", "places"),
    [
        *[(answered(status), WRITES) for status in (403, 429, 500, 503)],
        (httpx.ReadTimeout("late"), WRITES),
        (httpx.ReadError("reset"), WRITES),
        *[(answered(500), (place,)) for place in ("runs/log-batch", "runs/update", "artifact")],
        *[(answered(status), ("runs/log-batch",)) for status in (429, 503)],
    ],
    ids=str,
)
async def test_where_it_answers_and_takes_nothing_it_is_waited_for(
    fault: httpx.Response | Exception, places: tuple[str, ...]
) -> None:
    """A database that is full or read-only, a limit of writes, a token that may only read, no room for artifacts."""
    now = 0.0

    async def sleep(seconds: float) -> None:
        nonlocal now
        now += seconds
        await asyncio.sleep(0)

    def wrong(place: str, _body: Any) -> httpx.Response | Exception | None:
        return fault if place in places and now < 60 else None

    log = await log_of(story())
    async with client(fake := FakeMlflow(wrong)) as there:
        follower = await followed(log, Mlflow(there), sleep=sleep)
    assert (len(fake.made()), follower.passed_over) == (3, 0)
    ended = [body["status"] for place, body in fake.asked if place == "runs/update" and body.get("status")]
    assert {"FINISHED", "KILLED", "FAILED"} <= set(ended) and now >= 60
    trials = [body["run_id"] for place, body in fake.asked if place == "runs/delete"]
    assert len(trials) == len(set(trials)) <= 1, "however long it takes, one trial, and none that stays in sight"


async def test_a_worker_that_waits_for_mlflow_is_not_taken_for_one_that_stands() -> None:
    now, verdicts = 0.0, set[type]()
    log, state = await log_of(story()), watch.begun(0.0)

    async def sleep(seconds: float) -> None:
        nonlocal now, state
        now += seconds
        state = watch.seen(state, follower.sight(), now)
        ends = {(topic, n): end for topic in TOPICS for n, end in (await log.ends(topic)).items()}
        state = watch.answered(state, ends, now)
        verdicts.add(type(watch.verdict(state, watch.Patience(stalled=2.0), now)))
        await asyncio.sleep(0)

    async with client(FakeMlflow(lambda _place, _body: DOWN if now < 200 else None)) as there:
        follower = RunFollower(log, TopicNames(), Mlflow(there), sleep=sleep)
        await through(follower, asyncio.create_task(follower.run()))
    assert now >= 200 and watch.Stalled not in verdicts


async def test_beside_a_long_log_and_a_slow_mlflow_it_gets_on_and_keeps_what_it_did() -> None:
    runs = [(f"r-{n}", n) for n in range(3 * NOTES)]
    log = await log_of([each for run, n in runs for each in (requested("acme", run, n), accepted("acme", run, n))])
    now, state, seen = 0.0, watch.begun(0.0), set[type]()

    def slow(_place: str, _body: Any) -> None:
        nonlocal now, state
        now += 1.0
        state = watch.answered(watch.seen(state, follower.sight(), now), {("training-request", 0): 6 * NOTES}, now)
        seen.add(type(watch.verdict(state, watch.Patience(stalled=3.0), now)))

    async with client(FakeMlflow(slow)) as there:
        follower = RunFollower(log, TopicNames(), Mlflow(there))
        async with log.alone("rillfold-mlflow") as alone:
            await follower._recall()
            await follower._take(("training-request", 0), 6 * NOTES)
            await follower._finish(alone)
    assert (await log.committed("rillfold-mlflow", "training-request"))[0] == 2 * NOTES
    assert follower.noted == NOTES and watch.Stalled not in seen


@pytest.mark.parametrize(
    ("fault", "told"),
    [
        (None, ""),
        (DOWN, "does not answer (ConnectError"),
        (httpx.Response(200, text="<html>"), "with 200 and no JSON"),
        (httpx.Response(401), "with 401"),
    ],
    ids=["there", "away", "another", "not let in"],
)
async def test_a_worker_that_has_nothing_to_note_yet_says_at_its_start_where_mlflow_is_away(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, fault: Any, told: str
) -> None:
    log, fake = await log_of([]), FakeMlflow(lambda _place, _body: fault)

    @asynccontextmanager
    async def here(*_given: Any) -> AsyncIterator[MemoryLog]:
        yield log

    @asynccontextmanager
    async def made(_settings: Settings) -> AsyncIterator[Mlflow]:
        async with client(fake) as there:
            yield Mlflow(there)

    monkeypatch.setattr(worker, "event_log", here)
    monkeypatch.setattr(wiring, "mlflow", made)
    is_ready = asyncio.Event()
    with caplog.at_level(logging.WARNING):
        async with worker._made(Settings()) as working:
            running = asyncio.create_task(working.run(is_ready.set))
            await asyncio.wait_for(is_ready.wait(), 5.0)
            running.cancel()
            await asyncio.wait([running])
    assert [told in record.getMessage() for record in caplog.records] == [True] * bool(told)
    assert fault or [place for place, _ in fake.asked] == ["experiments/get-by-name"], "it asks, and makes nothing"


async def test_who_was_shut_out_while_mlflow_was_away_makes_no_run_when_it_is_back() -> None:
    away, tasks = True, list[asyncio.Task[None]]()
    back = asyncio.Event()

    async def sleep(_seconds: float) -> None:
        await back.wait()
        await asyncio.sleep(0)

    class SlowFakeMlflow(FakeMlflow):
        async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
            await asyncio.sleep(0.002)
            return await super().handle_async_request(request)

    log = await log_of(story()[:3])
    async with client(fake := SlowFakeMlflow(lambda _place, _body: DOWN if away else None)) as there:
        for _ in range(2):
            follower = RunFollower(log, TopicNames(), Mlflow(there), sleep=sleep)
            tasks.append(asyncio.create_task(follower.run()))
            await asyncio.sleep(0.1)
        away = False
        back.set()
        await through(follower, tasks[1])
        await asyncio.wait(tasks[:1])
    assert isinstance(tasks[0].exception(), ShutOut)
    assert fake.made() == ["acme/desk"]


async def test_who_is_shut_out_between_the_search_and_the_making_makes_none() -> None:
    log = await log_of(story()[:2])
    async with client(fake := FakeMlflow()) as there, log.alone("rillfold-mlflow") as first:
        follower = RunFollower(log, TopicNames(), Mlflow(there))
        await follower._recall()
        async with log.alone("rillfold-mlflow"):
            with pytest.raises(ShutOut):
                await follower.step(first)
    assert fake.made() == [] and follower.passed_over == 0


async def test_a_log_that_fails_in_the_middle_loses_no_note() -> None:
    class FailingLog(MemoryLog):
        """Each append of the one appender fails at first, and works the next time."""

        failed = 0

        @asynccontextmanager
        async def alone(self, name: str) -> AsyncIterator[Any]:
            async with super().alone(name) as one:
                works, appended = self.failed % 2, one.append

                async def append(*given: Any) -> Any:
                    if not works:
                        self.failed += 1
                        raise AppendFailed(name, "away")
                    self.failed += 1
                    return await appended(*given)

                # The fault stands before the log's own append: all else of it is as it is.
                one.append = append  # type: ignore[method-assign]
                yield one

    async def sleep(_seconds: float) -> None:
        await asyncio.sleep(0)

    log = FailingLog()
    await log.create([TopicSpec(topic, 1) for topic in TOPICS])
    await log.append([to_outgoing(event, TopicNames()) for event in story()])
    async with client(fake := FakeMlflow()) as there:
        follower = await followed(log, Mlflow(there), sleep=sleep)
    assert log.failed and sorted(fake.made()) == ["acme/desk", "acme/desk", "globex/desk"]
    assert follower.passed_over == 0
    assert "FINISHED" in str(fake.asked)


async def test_a_run_that_is_refused_or_breaks_the_server_holds_up_no_other() -> None:
    async def sleep(_seconds: float) -> None:
        await asyncio.sleep(0)

    for status in (400, 500):
        refusal, tries = answered(status), 0

        def wrong(place: str, body: Any, refusal: httpx.Response = refusal) -> httpx.Response | None:
            nonlocal tries
            its = place == "runs/create" and body["run_name"].startswith("acme/desk")
            tries += its
            return refusal if its else None

        async with client(fake := FakeMlflow(wrong)) as there:
            follower = await followed(await log_of(story()), Mlflow(there), sleep=sleep)
        assert fake.made() == ["globex/desk"]
        assert follower.passed_over == 3, "two runs, and what came of the adapter of one"
        assert tries == 3 * (TRIES if status == 500 else 1)


async def test_what_one_request_is_refused_for_takes_no_other_with_it() -> None:
    refusal = httpx.Response(400, json={"error_code": "INVALID_PARAMETER_VALUE", "message": "too long"})
    async with client(fake := FakeMlflow(lambda _p, body: refusal if "params" in (body or {}) else None)) as there:
        follower = await followed(await log_of(story()), Mlflow(there))
    assert follower.passed_over == 3
    assert [body["status"] for place, body in fake.asked if place == "runs/update" and "status" in body] == [
        "FINISHED",
        "KILLED",
        "FAILED",
    ]


async def test_a_run_that_is_gone_for_good_is_made_anew() -> None:
    log = await log_of(story()[:3])
    gone = httpx.Response(404, json={"error_code": "RESOURCE_DOES_NOT_EXIST", "message": "no run"})

    def wrong(_place: str, body: Any) -> httpx.Response | None:
        return gone if isinstance(body, dict) and body.get("run_id") == "run-1" else None

    async with client(fake := FakeMlflow(wrong, finds=False)) as there:
        follower = await followed(log, Mlflow(there))
    assert follower.passed_over == 0 and len(fake.made()) == 2


TOLD_OF = [kind for name in TOPICS for kind in BY_NAME[name].events]


@settings(suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(st.sampled_from(TOLD_OF).flatmap(of), max_size=4))
def test_whatever_the_events_say_it_is_a_note_or_nothing(events: list[Event]) -> None:
    tracking = Tracking()
    for event in (*events, *events):
        tracking.take(event)


def test_no_company_speaks_of_the_run_of_another_and_no_zero_byte_is_passed_on() -> None:
    tracking = Tracking()
    for event in (requested("acme", "r-1", 0), accepted("acme", "r-1", 1), ready("acme", "r-1", 2)):
        tracking.take(event)
    decided = {"adapter": "acme/desk", "adapter_version": 1, "percent": 0, "reason": "it\0leaks"}
    assert tracking.take(said(RolloutDecided, "globex", 3, **decided)) is None
    note = tracking.take(said(RolloutDecided, "acme", 3, **decided))
    assert note is not None and note.tags == {"rollout": "0 %: it\ufffdleaks"}


def test_a_deep_verdict_costs_no_more_than_its_own_size() -> None:
    """A name holds its whole way, so that n levels of n leaves were n * n long."""
    tracking = Tracking()
    for event in (requested("acme", "r-1", 0), accepted("acme", "r-1", 1)):
        tracking.take(event)
    figures = '{"k":1,"deeper":' * 400 + "{}" + "}" * 400
    facts = {"run": "r-1", "adapter": "acme/desk", "adapter_version": 1, "figures": figures}
    note = tracking.take(said(AdapterJudged, "acme", 2, promoted=True, reason="better", detail="", **facts))
    assert note is not None and 0 < len(note.figures) <= 10
    assert sum(len(each.name) for each in note.figures) < 1_000


def test_what_was_said_of_a_run_is_not_kept_for_ever() -> None:
    tracking, long = Tracking(), "long" * 1000
    for event in (
        requested("acme", "r-1", 0, settings=f'{{"nonsense":"{long}"}}'),
        requested("acme", "r-2", 0, settings=f'{{"nonsense":"{long}"}}'),
        accepted("acme", "r-1", 1),
        said(training.TrainingRefused, "acme", 2, run="r-2", reason="no_data", detail=long),
        said(training.TrainingFailed, "acme", 3, run="r-1", reason="diverged", detail=long, generation=1),
    ):
        note = tracking.take(event)
        if isinstance(event, training.TrainingAccepted):
            assert note is not None and long in str(note.params)
    assert long not in str(tracking._runs) and [run.run for run in tracking._runs.values()] == ["r-1"]


def test_nobody_fills_the_memory_by_asking() -> None:
    tracking, long = Tracking(), "long" * 10_000
    ranges = tuple(training.OffsetRange(topic="t", partition=0, start=0, stop=1) for _ in range(1_000))
    for n in range(50):
        tracking.take(requested("acme", f"gone-{n}", 0, settings=long, ranges=ranges))
        tracking.take(said(training.TrainingWithdrawn, "acme", 1, run=f"gone-{n}", reason=long))
        tracking.take(said(training.TrainingRefused, "acme", 2, run=f"gone-{n}", reason="withdrawn", detail=long))
    assert not tracking._runs and not tracking._waiting
    for n in range(WAITING + 50):
        tracking.take(requested("acme", f"r-{n}", 0, settings=long, ranges=ranges))
    tracking.take(requested("globex", "r-0", 0))
    kept = tracking._runs.values()
    assert len(kept) == WAITING + 1 and not any(run.ranges for run in kept)
    assert max(len(run.settings) for run in kept) <= SETTINGS
    # Of one that was forgotten less is told, and of all others everything.
    told = [tracking.take(accepted(company, run, 3)) for company, run in [("acme", "r-49"), ("acme", "r-50")]]
    assert [note is not None and "longlong" in str(note.params) for note in told] == [False, True]


async def test_large_wishes_are_read_a_few_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(following, "CHUNK_BYTES", 3_000)
    log = await log_of([requested("acme", f"r-{n}", n, settings="x" * 1_000) for n in range(10)])
    follower = RunFollower(log, TopicNames(), Mlflow(client(FakeMlflow())))
    read = list[int]()

    async def watched(place: TopicPartition, start: int, stop: int) -> tuple[Sequence[Record], int]:
        found = await RunFollower._read(follower, place, start, stop)
        read.append(len(found[0]))
        return found

    monkeypatch.setattr(follower, "_read", watched)
    async with log.alone(GROUP) as alone:
        await follower._recall()
        while await follower.step(alone):
            pass
    assert sum(read) == 10 and max(read) <= 3
    assert not await follower.behind()


async def test_it_gets_in_by_the_names_of_its_own_client() -> None:
    given_ = {"RILLFOLD_MLFLOW_URL": "http://10.0.0.7:5000/its/path", "MLFLOW_TRACKING_USERNAME": "me"}
    for environ, head in (
        ({**given_, "MLFLOW_TRACKING_TOKEN": "t-1"}, "Bearer t-1"),
        ({**given_, "MLFLOW_TRACKING_PASSWORD": "pw"}, "Basic bWU6cHc="),
    ):
        assert not {"t-1", "pw"} & {str(each.value) for each in in_force(environ)}
        async with mlflow(from_env(environ)) as there:
            there._client._transport = fake = FakeMlflow()
            await there.takes_a_run("acme")
            assert fake.heads[0]["Authorization"] == head
            assert there.url == "http://10.0.0.7:5000/its/path"
    with pytest.raises(Stop, match="RILLFOLD_MLFLOW_URL"):
        async with mlflow(Settings()):
            pass


@asynccontextmanager
async def private(authority: Authority, folder: Path) -> AsyncIterator[str]:
    """Behind TLS that only this authority vouches for. What it says to everybody makes sense to who makes a run."""
    (folder / "server.pem").write_bytes(authority.key_and_certificate("127.0.0.1"))
    shown = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    shown.load_cert_chain(folder / "server.pem")
    said = b'{"experiment":{"experiment_id":"1"},"run":{"info":{"run_id":"1"}}}'

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: %d\r\n\r\n%s" % (len(said), said))
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0, ssl=shown)
    try:
        yield f"https://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    finally:
        server.close()


async def test_behind_a_private_authority_it_is_believed_by_ssl_cert_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    authority, file = Authority("suite"), tmp_path / "authority.pem"
    file.write_bytes(authority.certificate)
    async with private(authority, tmp_path) as url:
        monkeypatch.delenv("SSL_CERT_FILE", raising=False)
        async with mlflow(Settings(mlflow_url=url)) as there:
            with pytest.raises(MlflowAway, match="CERTIFICATE_VERIFY_FAILED"):
                await there.takes_a_run("acme")
        monkeypatch.setenv("SSL_CERT_FILE", str(file))
        monkeypatch.setenv("HTTPS_PROXY", "http://127.0.0.1:9")
        async with mlflow(Settings(mlflow_url=url)) as there:
            await there.takes_a_run("acme")
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "none.pem"))
    with pytest.raises(Stop, match="SSL_CERT_FILE"):
        async with mlflow(Settings(mlflow_url=url)):
            pass


def test_it_is_run_where_there_is_an_mlflow() -> None:
    assert set(started(reacting=False, tracking=True)) - set(started(reacting=False)) == {"mlflow"}


@pytest.mark.parametrize("fault", [None, DOWN], ids=["there", "away"])
async def test_a_loop_without_kafka_leaves_the_same_runs(
    monkeypatch: pytest.MonkeyPatch, fault: Exception | None
) -> None:
    """And a server that is away costs it a few moments at its end, and one line."""
    fake, lines = FakeMlflow(lambda _place, _body: fault), list[str]()

    @asynccontextmanager
    async def made(_settings: Settings) -> AsyncIterator[Mlflow]:
        async with client(fake) as there:
            yield Mlflow(there)

    monkeypatch.setattr(tracked, "mlflow", made)
    monkeypatch.setattr(tracked, "LAST_SECONDS", 3.0 if fault is None else 0.2)
    log = await log_of([])
    async with tracked.noted(log, TopicNames(), Settings(mlflow_url="http://mlflow.test"), lines.append):
        await log.append([to_outgoing(event, TopicNames()) for event in story()])
    if fault is None:
        assert len(fake.made()) == 3 and not lines
    else:
        assert lines == ["MLflow at http://mlflow.test/its/path has not taken all that is to be noted of these runs."]
    async with tracked.noted(MemoryLog(), TopicNames(), Settings(), lines.append):
        pass
