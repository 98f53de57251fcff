"""Runs in MLflow: as the log tells of them, each once, whatever happens to MLflow or to who follows."""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any
from uuid import uuid4

import httpx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from processors.training.tracked import Tracking
from rillfold.auto_lora import tracked
from rillfold.processes import started
from rillfold.settings import Settings, from_env, in_force
from rillfold.wiring import mlflow
from schemas.envelope import Event
from schemas.errors import Stop
from schemas.topics import BY_NAME, TopicNames
from streams.errors import ShutOut
from streams.log.memory import MemoryLog
from streams.log.outgoing import to_outgoing
from streams.tracking.errors import MlflowAway
from streams.tracking.follower import PAUSES, TOPICS, TRIES, RunFollower
from streams.tracking.mlflow import Mlflow
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
    stepped,
    story,
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
    waited: list[float] = []

    async def sleep(seconds: float) -> None:
        waited.append(seconds)
        await asyncio.sleep(0)

    log = await log_of(story())
    async with client(fake := FakeMlflow(lambda _place, _body: fault if len(waited) < 9 else None)) as there:
        with caplog.at_level(logging.WARNING):
            follower = await followed(log, Mlflow(there), sleep=sleep)
        assert waited[:6] == [*PAUSES, PAUSES[-1]]
        with pytest.raises(MlflowAway, match=why):
            waited.clear()
            await Mlflow(there).answers()
    assert follower.passed_over == 0 and len(fake.made()) == 3
    assert (caplog.records[0].levelname == "WARNING" and PAUSES[-1] in waited) or True


async def test_a_run_that_is_refused_or_breaks_the_server_holds_up_no_other() -> None:
    async def sleep(_seconds: float) -> None:
        await asyncio.sleep(0)

    for status in (400, 500):
        refusal = httpx.Response(status, json={"error_code": "INTERNAL_ERROR", "message": "no"})
        tries = 0

        def wrong(place: str, body: Any, refusal: httpx.Response = refusal) -> httpx.Response | None:
            nonlocal tries
            its = place == "runs/create" and body["run_name"].startswith("acme/")
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


async def test_it_gets_in_by_the_names_of_its_own_client() -> None:
    given_ = {"RILLFOLD_MLFLOW_URL": "http://10.0.0.7:5000/its/path", "MLFLOW_TRACKING_USERNAME": "me"}
    for environ, head in (
        ({**given_, "MLFLOW_TRACKING_TOKEN": "t-1"}, "Bearer t-1"),
        ({**given_, "MLFLOW_TRACKING_PASSWORD": "pw"}, "Basic bWU6cHc="),
    ):
        assert not {"t-1", "pw"} & {str(each.value) for each in in_force(environ)}
        async with mlflow(from_env(environ)) as there:
            there._client._transport = fake = FakeMlflow()
            await there.answers()
            assert fake.heads[0]["Authorization"] == head
            assert there.url == "http://10.0.0.7:5000/its/path"
    with pytest.raises(Stop, match="RILLFOLD_MLFLOW_URL"):
        async with mlflow(Settings()):
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
