"""Queries over the real fold and the real read model: scope, proof, pages, read-your-writes, the feed."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Awaitable
from contextlib import AsyncExitStack
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from psycopg.types.json import Jsonb

from projections.catalog import PROJECTIONS
from rillfold.api import automation_jobs
from rillfold.api import projections as routes
from rillfold.automation import AutomationService
from rillfold.client import ApiAway, ApiRefused, Client
from rillfold.embedded.stack import Endpoints
from rillfold.http.keys import id_of
from schemas.company import CompanyRegistered
from schemas.envelope import caused_by
from schemas.inference import InferenceCompleted, InferenceRequested
from streams.read_model.questions import OF_ONE
from streams.read_model.reads import Reads
from tests.support.world import World, opened

CANARY = "tok_canary_rows"


@pytest.fixture
async def world(stack: Endpoints, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, serve) -> AsyncIterator[World]:
    monkeypatch.setattr(routes, "FEED_SECONDS", 0.01)
    async with opened(stack, tmp_path, serve) as world:
        yield world


def tool(name: str) -> dict[str, Any]:
    return {"name": name, "endpoint": "https://api.example/x", "auth": {"type": "bearer", "token": CANARY}}


async def register(world: World, key: str, *names: str) -> dict[str, Any]:
    given = {"tools": [tool(name) for name in names]}
    answer = await world.api.ask("POST", "/company-automation/register-tools", key, json=given)
    return answer.json()["tools"]


async def test_rows_of_ones_own_company_with_their_proof(world: World) -> None:
    await register(world, world.api.acme, "a", "b")
    placed = await register(world, world.api.globex, "c")
    await world.catch_up()
    answer = (await world.api.ask("GET", "/projections/company_tools", world.api.acme)).json()
    assert [row["key"] for row in answer["rows"]] == ["acme/a", "acme/b"]
    assert answer["next"] is None
    proof = answer["proof"]
    assert (proof["projection"], proof["version"]) == ("company_tools", 1)
    assert sum(sum(of.values()) for of in proof["lag"].values()) == 0
    one = (await world.api.ask("GET", "/projections/company_tools/globex/c", world.api.globex)).json()
    assert (one["topic"], one["partition"], one["offset"]) == tuple(
        placed["c"][k] for k in ("topic", "partition", "offset")
    )
    assert one["row"]["active"] is True
    everyone = (await world.api.ask("GET", "/projections/company_tools", world.api.admin)).json()
    assert [row["key"] for row in everyone["rows"]] == ["acme/a", "acme/b", "globex/c"]


async def test_no_table_holds_a_credential(world: World) -> None:
    await register(world, world.api.acme, "a")
    await world.catch_up()
    for table in ("company_tools_v1", "company_tools"):
        rows = await (await world.database.execute(f"SELECT t::text FROM {table} t")).fetchall()
        assert len(rows) == 1
        assert "sec_" in rows[0][0]
        assert CANARY not in rows[0][0]


async def test_before_the_sink_has_run_it_is_named(stack: Endpoints, serve, empty_log, tmp_path: Path) -> None:
    async with Reads(stack.postgres_dsn, "nobody") as reads, serve(tmp_path, empty_log, reads=reads) as api:
        answer = await api.ask("GET", "/projections/company_tools", api.acme)
    assert answer.status_code == 503
    assert "rillfold worker sink" in answer.json()["error"]["message"]


async def test_another_companys_rows_are_not_there(world: World) -> None:
    await register(world, world.api.acme, "a")
    await world.catch_up()
    absent = await world.api.ask("GET", "/projections/company_tools/acme/nothing", world.api.acme)
    foreign = await world.api.ask("GET", "/projections/company_tools/acme/a", world.api.globex)
    assert (absent.status_code, foreign.status_code) == (404, 404)
    assert absent.json() == foreign.json()
    for path in ("/projections/company_tools?company_id=acme", "/projections/company_tools/changes?company_id=acme"):
        assert (await world.api.ask("GET", path, world.api.globex)).status_code == 404
    empty = (await world.api.ask("GET", "/projections/company_tools", world.api.globex)).json()
    assert empty["rows"] == []
    assert (await world.api.ask("GET", "/projections/no_such", world.api.admin)).status_code == 404


async def test_pages(world: World) -> None:
    names = [f"t{n:02}" for n in range(25)]
    await register(world, world.api.acme, *names)
    await register(world, world.api.globex, "t99")
    await world.catch_up()
    seen, after = [], None
    while True:
        query = {"limit": 10} | ({"after": after} if after else {})
        page = (await world.api.ask("GET", "/projections/company_tools", world.api.acme, params=query)).json()
        seen += [row["row"]["name"] for row in page["rows"]]
        if (after := page["next"]) is None:
            break
    assert seen == names


@pytest.mark.parametrize(
    ("path", "rows"), [("/projections/lora_adapters", "rows"), ("/company-automation/adapters", "adapters")]
)
async def test_a_page_holds_the_rows_that_fit(
    world: World, monkeypatch: pytest.MonkeyPatch, path: str, rows: str
) -> None:
    """Bounded in bytes too; a row that is larger than a page comes all the same."""
    monkeypatch.setattr("streams.read_model.reads.PAGE_BYTES", 50_000)
    sizes = [10] * 5 + [20_000] * 5 + [60_000, 10, 60_000, 60_000]
    for version, size in enumerate(sizes, 10):
        await world.driver.send(ready("acme", version, "x" * size))
    await world.catch_up()
    pages, after = list[list[int]](), None
    while not pages or after is not None:
        page = await world.api.ask("GET", path, world.api.acme, params={"after": after} if after else {})
        pages.append([row.get("row", row)["version"] for row in page.json()[rows]])
        after = page.json()["next"]
    assert [sizes[version - 10] for page in pages for version in page] == sizes
    assert [len(page) for page in pages] == [8, 3, 2, 1]


ODD = {
    "text": "a\n\t\x1f\x7f\"\\/\u20ac\U0001f600\u2028<&>", "none": None, "yes": True, "empty": {},
    "large": 2**60, "list": [1, [2.5, []]], "nested": {"b": [{"a": -1.25}], "": 0.001},
    "floats": [1.0, 5e-05, 1e16, 12345678.9],
}  # fmt: skip


async def test_rows_are_told_as_the_schema_says(world: World) -> None:
    """Byte for byte what its models would write, though no row is read on its way through."""
    await register(world, world.api.acme, "a", "b")
    await world.catch_up()
    await world.database.execute("UPDATE company_tools_v1 SET row = row || %s", (Jsonb(ODD),))
    page = await world.api.ask("GET", "/projections/company_tools", world.api.acme)
    assert [row["row"].items() >= ODD.items() for row in page.json()["rows"]] == [True, True]
    assert page.content == routes.RowsAndProof.model_validate_json(page.content).model_dump_json().encode()
    one = await world.api.ask("GET", "/projections/company_tools/acme/a", world.api.acme)
    dumped = routes.RowAndProof.model_validate_json(one.content).model_dump_json().encode()
    assert (one.content, one.headers["content-type"]) == (dumped, "application/json")


async def test_a_page_of_many_small_values_makes_nobody_wait(world: World) -> None:
    """To answer with it takes less than to read it once would."""
    await register(world, world.api.acme, *(f"t{n}" for n in range(20)))
    await world.catch_up()
    ranges = [{"topic": "company-data", "partition": 0, "start": n, "stop": n} for n in range(3_000)]
    await world.database.execute("UPDATE company_tools_v1 SET row = row || %s", (Jsonb({"ranges": ranges}),))
    stood, reading = list[float](), list[float]()
    for _ in range(5):
        answer, longest = await standing(world.api.ask("GET", "/projections/company_tools", world.api.acme))
        begun = time.thread_time()
        assert sum(len(row["row"]["ranges"]) for row in answer.json()["rows"]) > 40_000
        stood, reading = [*stood, longest], [*reading, time.thread_time() - begun]
    assert min(stood) < min(reading), (stood, reading)


async def standing(asked: Awaitable[Any]) -> tuple[Any, float]:
    """The answer, and the longest time that the loop was at work on one thing: its own, however busy the machine is."""
    asking, longest, last = asyncio.ensure_future(asked), 0.0, time.thread_time()
    while not asking.done():
        await asyncio.sleep(0)
        longest, last = max(longest, time.thread_time() - last), time.thread_time()
    return await asking, longest


async def test_read_your_writes_or_409(world: World) -> None:
    place = (await register(world, world.api.acme, "a"))["a"]
    wanted = f"{place['topic']}/{place['partition']}/{place['offset']}"
    path = f"/projections/company_tools/acme/a?min_offset={wanted}"
    behind = await world.api.ask("GET", f"{path}&wait=0", world.api.acme)
    assert (behind.status_code, behind.json()["error"]["code"]) == (409, "behind")
    waiting = asyncio.create_task(world.api.ask("GET", f"{path}&wait=30", world.api.acme))
    await world.catch_up()
    assert (await waiting).json()["row"]["name"] == "a"
    bad = await world.api.ask("GET", "/projections/company_tools?min_offset=x", world.api.acme)
    assert bad.json()["error"]["code"] == "bad_min_offset"


async def test_the_feed_tells_changes_of_ones_own_company(world: World) -> None:
    await register(world, world.api.acme, "before")
    await world.catch_up()
    headers = {"Authorization": f"Bearer {world.api.acme}"}
    told: list[str] = []
    async with (
        asyncio.timeout(30),
        world.api.http.stream("GET", "/projections/company_tools/changes", headers=headers) as feed,
    ):
        assert feed.headers["content-type"].startswith("text/event-stream")
        lines = feed.aiter_lines()
        for key, name in ((world.api.globex, "foreign"), (world.api.acme, "after"), (world.api.acme, "later")):
            await register(world, key, name)
            await world.catch_up()
        while len(told) < 2:
            line = await anext(lines)
            told += [json.loads(line.removeprefix("data: "))["key"]] if line.startswith("data: ") else []
    assert told == ["acme/after", "acme/later"]


async def test_a_feed_ends_by_name_when_its_key_is_revoked(world: World) -> None:
    """Another key of the same company follows on."""
    await world.catch_up()
    keys = world.api.services.keys
    other = keys.make("acme")
    async with asyncio.timeout(30), Client(world.api.url, world.api.acme) as client, Client(world.api.url, other) as on:
        following = [asyncio.ensure_future(anext(each.changes("company_tools"))) for each in (client, on)]
        await asyncio.sleep(0.5)
        assert not any(each.done() for each in following)
        keys.revoke(id_of(world.api.acme))
        with pytest.raises(ApiRefused, match="unauthorized"):
            await following[0]
        names = count()
        while not following[1].done():
            await register(world, other, f"t{next(names)}")
            await world.catch_up()
        assert (await following[1])["key"].startswith("acme/t")


async def test_the_last_word_of_a_feed_is_an_error_event(world: World) -> None:
    headers = {"Authorization": f"Bearer {world.api.acme}"}
    await world.catch_up()
    async with (
        asyncio.timeout(30),
        world.api.http.stream("GET", "/projections/company_tools/changes", headers=headers) as feed,
    ):
        world.api.services.keys.rotate(id_of(world.api.acme))
        lines = [line async for line in feed.aiter_lines() if line]
    assert lines[-2] == "event: error"
    assert json.loads(lines[-1].removeprefix("data: "))["error"]["code"] == "unauthorized"


async def test_a_wait_for_a_job_ends_when_its_key_is_revoked(world: World) -> None:
    await world.catch_up()
    waiting = asyncio.create_task(
        world.api.ask("GET", "/company-automation/jobs/j?wait=60", world.api.acme, timeout=90)
    )
    await asyncio.sleep(0.5)
    assert not waiting.done()
    world.api.services.keys.revoke(id_of(world.api.acme))
    assert (await asyncio.wait_for(waiting, 20)).status_code == 401


async def test_a_job_that_nobody_gave_out_is_waited_for_while_the_rows_are_behind(world: World, monkeypatch) -> None:
    monkeypatch.setattr(automation_jobs, "FRESH_SECONDS", 0.1)
    given = {"data": {"task": "Say hi."}, "job": "late"}
    assert (await world.api.ask("POST", "/company-automation/process", world.api.acme, json=given)).status_code == 202
    for how, more in (("GET", {}), ("POST", {"json": {}})):
        path = "/company-automation/jobs/nobody" + ("/cancel" if how == "POST" else "") + "?wait=60"
        waiting = asyncio.create_task(world.api.ask(how, path, world.api.acme, timeout=90, **more))
        if how == "GET":
            await asyncio.sleep(1)
            assert not waiting.done(), "the rows know less than the log: it may be there"
            await world.catch_up()
        assert (await asyncio.wait_for(waiting, 20)).status_code == 404


async def test_a_company_with_all_the_feeds_and_queries_it_may_have_holds_up_nobody(world: World) -> None:
    """Its queries stand still for as long as the test likes; feeds are counted among them."""
    await register(world, world.api.globex, "a")
    await world.catch_up()
    headers, path = {"Authorization": f"Bearer {world.api.acme}"}, "/projections/company_tools"
    async with AsyncExitStack() as open_, asyncio.timeout(120):
        for _ in range(16):
            feed = world.api.http.stream("GET", f"{path}/changes", headers=headers)
            assert (await open_.enter_async_context(feed)).status_code == 200
        async with world.database.transaction():
            await world.database.execute("LOCK TABLE company_tools_v1 IN ACCESS EXCLUSIVE MODE")
            asked = [asyncio.create_task(world.api.ask("GET", path, world.api.acme, timeout=100)) for _ in range(48)]
            await standing_still(world, "acme", 64)
            one_more = await world.api.ask("GET", f"{path}/changes", world.api.acme)
            assert (one_more.status_code, one_more.json()["error"]["code"]) == (429, "too_many_at_once")
            for other in ("/projections", "/projections/companies", "/company-automation/adapters", "/ready"):
                assert (await world.api.ask("GET", other, world.api.globex, timeout=100)).status_code == 200
            assert not any(each.done() for each in asked)
        assert {answer.status_code for answer in await asyncio.gather(*asked)} == {200}
        found = await world.api.ask("GET", path, world.api.globex)
        assert [row["key"] for row in found.json()["rows"]] == ["globex/a"]


async def standing_still(world: World, company: str, requests: int) -> None:
    """Returns once so many have a turn at the database or wait for one, all told."""
    doors = world.api.services.reads._questions._companies._doors
    while True:
        door = doors.get(company)
        if door is not None and door.inside + len(door.line) == requests:
            assert door.inside == OF_ONE
            return
        await asyncio.sleep(0)


async def test_the_client_follows_a_feed(world: World) -> None:
    async with asyncio.timeout(30), Client(world.api.url, world.api.acme) as client:
        feed = client.changes("company_tools")
        first = asyncio.ensure_future(anext(feed))
        names = count()
        while not first.done():
            await register(world, world.api.acme, f"t{next(names)}")
            await world.catch_up()
        assert (await first)["key"].startswith("acme/t")
        await feed.aclose()


async def test_a_job_from_its_request_to_its_answer(world: World) -> None:
    """The saga runs in the fold; the test plays the model."""
    async with AutomationService(Client(world.api.url, world.api.acme)) as automation:
        working = asyncio.create_task(automation.process_company_data("acme", {"task": "Say hi"}, wait=60))
        async with asyncio.timeout(60):
            while not (asked := await world.driver.events("inference-request")):
                await world.driver.settle()
                await asyncio.sleep(0)
            (question,) = asked
            assert isinstance(question, InferenceRequested)
            await world.driver.send(
                InferenceCompleted(
                    **caused_by(question, 0, 1), request=question.id, job=question.job, text="hi", model="m",
                    finish_reason="stop", prompt_tokens=1, completion_tokens=1,
                )
            )  # fmt: skip
            await world.catch_up()
            result = await working
        again = await automation.client.job("acme", result["job"])
    assert (result["status"], result["answer"]) == ("completed", "hi")
    assert again["answer"] == "hi"
    assert [step["kind"] for step in again["steps"]] == ["inference_requested"]


def ready(company: str, version: int, more: str = "") -> dict[str, Any]:
    return {
        "type": "adapter.ready", "company": company, "adapter": f"{company}/default", "adapter_version": version,
        "run": "r", "sha256": "0" * 64, "uri": "x", "method": "lora", "rank": 16, "alpha": 32.0, "base_model": "m",
        "base_sha256": "0", "manifest": "0", "ranges": [], "seed": 0, "identity": json.dumps(more),
    }  # fmt: skip


async def test_adapters(world: World) -> None:
    for company in ("acme", "globex"):
        await world.driver.send(ready(company, 1))
    await world.catch_up()
    answer = (await world.api.ask("GET", "/company-automation/adapters", world.api.acme)).json()
    assert [(row["adapter"], row["promoted"]) for row in answer["adapters"]] == [("acme/default", True)]
    await world.driver.send(
        {"type": "rollout.decided", "company": "acme", "adapter": "acme/default", "adapter_version": 1, "percent": 0}
    )
    await world.catch_up()
    answer = (await world.api.ask("GET", "/company-automation/adapters", world.api.acme)).json()
    assert [(row["stable"], row["withdrawn"]) for row in answer["rollouts"]] == [(None, [1])]


async def test_the_client_names_what_went_wrong(world: World) -> None:
    async with Client(world.api.url, world.api.globex) as client:
        with pytest.raises(ApiRefused, match="not_found") as refused:
            await client.row("company_tools", "acme/a")
        assert refused.value.status == 404
    async with Client("http://127.0.0.1:9", "rk_x.y") as client:
        with pytest.raises(ApiAway, match="rillfold api"):
            await client.rows("company_tools")


async def test_the_list_of_projections_says_how_far_each_is(world: World) -> None:
    await world.driver.send(CompanyRegistered(id="c", company="acme", time=1, correlation="c", name="Acme"))
    await world.driver.settle()
    listed = {each["projection"]: each for each in (await world.api.ask("GET", "/projections", world.api.acme)).json()}
    assert set(listed) == set(PROJECTIONS)
    assert sum(listed["companies"]["lag"]["company-data"].values()) == 1
    await world.catch_up()
    listed = {each["projection"]: each for each in (await world.api.ask("GET", "/projections", world.api.acme)).json()}
    assert sum(listed["companies"]["lag"]["company-data"].values()) == 0


async def test_no_word_reaches_another_companys_rows(world: World) -> None:
    """Near names, wildcards, dots, halves of keys, and characters that no database takes."""
    await register(world, world.api.globex, "a")
    await register(world, world.api.services.keys.make("acme2"), "b")
    await world.catch_up()
    words = ("globex%2Fa", "acme%2F..%2Fglobex%2Fa", "%25", "_", "acme%25", "acme_", "acme2%2Fb", "acme", "%00",
             "acme%2F%00", "acme%2F%EF%BF%BF", "%2Fglobex%2Fa", "acme2", "%ff", "globex")  # fmt: skip
    for word in words:
        for path in (f"/projections/company_tools/{word}", f"/projections/company_tools?after={word}",
                     f"/projections/company_tools?company_id={word}", f"/company-automation/jobs/{word}",
                     f"/company-automation/adapters?company_id={word}"):  # fmt: skip
            answer = await world.api.ask("GET", path, world.api.acme)
            assert answer.status_code in (200, 404, 422), (path, answer.text)
            assert answer.json().get("rows", []) == [], path
            assert "globex/a" not in answer.text and "acme2/b" not in answer.text, path
