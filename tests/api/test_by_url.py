"""Commands that need the API's address and a key alone, over the real API, fold and read model."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from rillfold.cli import rillfold
from rillfold.embedded.stack import Endpoints
from schemas.company import ToolRegistered
from schemas.inference import InferenceCompleted
from schemas.jobs import JobCompleted, JobRequested, JobWithdrawn
from schemas.training import TrainingRefused, TrainingRequested, TrainingWithdrawn
from tests.support.world import World, opened

CANARY = "tok_canary_by_url"
TOOL = {"name": "lookup", "endpoint": "https://api.example/x", "auth": {"type": "bearer", "token": CANARY}}
Say = Callable[..., Awaitable[Result]]


@pytest.fixture
async def world(stack: Endpoints, tmp_path: Path, serve) -> AsyncIterator[World]:
    async with opened(stack, tmp_path, serve) as world:
        yield world


@pytest.fixture
def say(world: World, tmp_path: Path) -> Say:
    """A command of whoever has the key. Nothing in the environment names a log or a database."""

    async def said(key: str, *words: str, given: str | None = None, code: int = 0) -> Result:
        environment = {"RILLFOLD_API_URL": world.api.url, "RILLFOLD_API_KEY": key, "RILLFOLD_DATA_DIR": str(tmp_path)}
        done = await asyncio.to_thread(CliRunner().invoke, rillfold, list(words), input=given, env=environment)
        assert done.exit_code == code, (done.output, done.exception)
        return done

    return said


async def test_a_company_comes_in_and_its_key_is_shown_once(world: World, say: Say) -> None:
    told = await say(world.api.admin, "company", "add", "bakery", "--name", "Corner Bakery")
    key = told.output.split("RILLFOLD_API_KEY=")[1].strip()
    await world.catch_up()
    again = await say(world.api.admin, "company", "add", "bakery", code=1)
    assert "registered already" in str(again.exception) and "rillfold key new" in str(again.exception)
    listed = await say(world.api.admin, "company", "list")
    assert "bakery" in listed.output and "Corner Bakery" in listed.output and key not in listed.output
    assert "bakery" in (await say(key, "company", "list")).output
    assert "forbidden" in str((await say(key, "company", "add", "another", code=1)).exception)


async def test_tools_come_from_a_file_and_go_by_name(world: World, say: Say, tmp_path: Path) -> None:
    file = tmp_path / "tools.json"
    file.write_text(json.dumps({"tools": [TOOL, {**TOOL, "name": "refund", "method": "PUT"}]}))
    assert "lookup, refund" in (await say(world.api.acme, "tools", "register", str(file))).output
    one = await say(world.api.admin, "tools", "register", "-", "--company", "acme", given=json.dumps(TOOL))
    assert "lookup" in one.output
    events = [event for event in await world.api.events("company-data") if isinstance(event, ToolRegistered)]
    assert [event.name for event in events] == ["lookup", "refund", "lookup"]
    assert CANARY not in repr(events)
    await world.catch_up()
    await say(world.api.acme, "tools", "revoke", "refund", "--reason", "too dear")
    await world.catch_up()
    listed = (await say(world.api.acme, "tools", "list")).output
    assert "PUT https://api.example/x" in listed and "revoked: too dear" in listed and CANARY not in listed
    first = json.loads((await say(world.api.acme, "tools", "list", "--limit", "1", "--json")).output)
    rest = json.loads((await say(world.api.acme, "tools", "list", "--after", first["next"], "--json")).output)
    assert [row["name"] for row in (*first["rows"], *rest["rows"])] == ["lookup", "refund"] and rest["next"] is None
    assert "There are more: --after" in (await say(world.api.acme, "tools", "list", "--limit", "1")).output
    assert (await say(world.api.globex, "tools", "list", "--json")).output == '{"rows":[],"next":null}\n'


@pytest.mark.parametrize("text", ["", "[", "[]", "3", "[" * 100_000, '["lookup"]', '{"tools": 3}'])
async def test_a_file_that_holds_no_tools_is_named(world: World, say: Say, text: str) -> None:
    told = (await say(world.api.acme, "tools", "register", "-", given=text, code=2)).output
    assert "<stdin>" in told and "list" in told


async def test_what_the_api_refuses_is_one_line_with_its_reason(world: World, say: Say) -> None:
    wrong = json.dumps({**TOOL, "endpoint": "ftp://nowhere"})
    assert "ftp://nowhere" in str((await say(world.api.acme, "tools", "register", "-", given=wrong, code=1)).exception)
    told = str((await say(world.api.acme, "job", "show", "none", "--wait", "0", code=1)).exception)
    assert "no job 'none'" in told and "rillfold job list" in told
    assert "(401)" in str((await say("rk_a.b", "tools", "list", code=1)).exception)
    for key in ("rk_\u2026", "rk_a\nb"):
        assert "RILLFOLD_API_KEY is no API key" in str((await say(key, "tools", "list", code=1)).exception)
    told = str((await say(world.api.admin, "tools", "register", "-", given=json.dumps(TOOL), code=1)).exception)
    assert "with --company" in told


async def test_a_company_that_nobody_knows_is_doubted_where_that_matters_alone(world: World, say: Say) -> None:
    await say(world.api.admin, "company", "add", "bakery")
    await world.catch_up()

    async def doubts(*words: str, code: int = 0, given: str | None = None) -> str:
        return (await say(world.api.admin, *words, code=code, given=given)).stderr

    told = await doubts("tools", "list", "--company", "nobody")
    assert "no company 'nobody' is registered" in told and "meant" not in told
    assert "Is 'bakery' meant?" in await doubts("runs", "list", "--company", "bakry")
    assert "Is 'bakery' meant?" in await doubts("memory", "add", "x", "y", "--company", "bakry")
    assert "Is 'bakery' meant?" in await doubts("job", "show", "j", "--wait", "0", "--company", "bakry", code=1)
    assert await doubts("memory", "add", "x", "y", "--company", "newcomer") == "", "a name of its own may begin so"
    await world.catch_up()
    assert await doubts("memory", "list", "--company", "newcomer") == "", "something is there"
    assert await doubts("memory", "list", "--company", "bakery") == "", "it is registered"


async def test_what_is_not_there_is_not_taken_back(world: World, say: Say) -> None:
    await say(world.api.acme, "tools", "register", "-", given="\ufeff" + json.dumps(TOOL))
    await say(world.api.acme, "memory", "add", "opening", "at six")
    await world.catch_up()
    told = str((await say(world.api.acme, "tools", "revoke", "lookup", "lokup", code=1)).exception)
    assert "no 'lokup', and nothing was done" in told and "lookup" in told
    assert "no 'closing'" in str((await say(world.api.acme, "memory", "forget", "closing", code=1)).exception)
    await say(world.api.acme, "memory", "add", "x", "y", "--kind", "nonsense", code=2)
    await world.catch_up()
    listed = json.loads((await say(world.api.acme, "tools", "list", "--json")).output)["rows"]
    assert [(row["name"], row["active"]) for row in listed] == [("lookup", True)]


async def test_a_job_is_given_out_and_looked_at(world: World, say: Say) -> None:
    asked = ("job", "run", "Count them.", "--data", '{"of": 3}', "--call", "--id", "j1", "--wait", "0")
    told = await say(world.api.acme, *asked, "--session", "monday", "--role", "ops")
    assert "running" in told.output and "rillfold job show j1" in told.output
    (event,) = await world.api.events("automation-job")
    found = (event.task, event.data, event.first_step, event.session, event.role)
    assert found == ("Count them.", '{"of":3}', "call", "monday", "ops")
    await world.catch_up()
    assert "running" in (await say(world.api.acme, "job", "show", "j1", "--wait", "0")).output
    assert "Count them." in (await say(world.api.acme, "job", "list")).output
    assert "monday" in (await say(world.api.acme, "session", "list")).output
    another = await say(world.api.acme, "job", "run", "Something else.", "--id", "j1", "--wait", "0", code=1)
    assert "'j1' is of another task (Count them.)" in str(another.exception)
    assert "needs its quotes" in (await say(world.api.acme, "job", "run", "x", "--data", "{", code=2)).output


async def test_a_job_is_taken_back_once_by_its_company_or_the_operator_and_by_nobody_else(
    world: World, say: Say
) -> None:
    for job in ("j1", "j2", "j3"):
        await say(world.api.acme, "job", "run", "Count them.", "--id", job, "--wait", "0")
    told = str((await say(world.api.acme, "job", "cancel", "j1", "--wait", "0", code=1)).exception)
    assert "no job 'j1'" in told and "rillfold job list" in told
    await world.catch_up()
    for key, whose in ((world.api.globex, ()), (world.api.admin, ("--company", "globex"))):
        told = str((await say(key, "job", "cancel", "j1", "--wait", "0", *whose, code=1)).exception)
        assert "no job 'j1'" in told
    assert "with --company" in str((await say(world.api.admin, "job", "cancel", "j1", code=1)).exception)
    assert "once it is folded" in (await say(world.api.acme, "job", "cancel", "j1", "--wait", "0")).output
    keeping = asyncio.create_task(world.keep_up())
    assert "acme/j2" in (await say(world.api.admin, "job", "cancel", "j2", "--company", "acme")).output
    assert "withdrawn" in (await say(world.api.acme, "job", "show", "j1", code=1)).output
    again = await say(world.api.acme, "job", "cancel", "j1", "--reason", "another", "--json")
    assert json.loads(again.output)["withdrawn"] is None
    assert "taken back before" in (await say(world.api.acme, "job", "cancel", "j1")).output
    said = {each.job: each for each in await world.api.events("automation-job") if isinstance(each, JobWithdrawn)}
    assert {job: (each.company, each.reason) for job, each in said.items()} == {"j1": ("acme", ""), "j2": ("acme", "")}
    asked = {each.job: each for each in await world.api.events("automation-job") if isinstance(each, JobRequested)}
    assert said["j1"].correlation == asked["j1"].correlation
    about = {"id": "e", "time": 1, "correlation": "c", "company": "acme"}
    await world.driver.send(JobCompleted(**about, job="j3", answer="3", steps=2))
    done = await say(world.api.acme, "job", "show", "j3")
    assert "completed" in done.output
    told = str((await say(world.api.acme, "job", "cancel", "j3", code=1)).exception)
    assert "ended already, as completed" in told and "nothing was changed" in told
    assert "withdrawn" in (await say(world.api.acme, "job", "list")).output
    keeping.cancel()


async def test_what_is_remembered_is_noted_listed_and_forgotten(world: World, say: Say) -> None:
    await say(world.api.acme, "memory", "add", "refunds", "within 30 days")
    await say(world.api.admin, "memory", "add", "tone", "friendly", "--kind", "preference", "--company", "acme")
    await world.catch_up()
    await say(world.api.acme, "memory", "forget", "refunds")
    await world.catch_up()
    found = json.loads((await say(world.api.acme, "memory", "list", "--json")).output)["rows"]
    assert [(row["memory"], row["kind"], row["active"]) for row in found] == [
        ("refunds", "fact", False),
        ("tone", "preference", True),
    ]
    assert "forgotten" in (await say(world.api.acme, "memory", "list")).output


async def test_a_run_is_listed_and_its_wish_taken_back_once(world: World, say: Say) -> None:
    about: dict[str, Any] = {"time": 1, "correlation": "r1", "company": "acme"}
    wish = about | {"method": "lora", "base_model": "b"}
    for asked in (TrainingRequested(id="r1", role="sales", **wish), TrainingRequested(id="r2", **wish)):
        await world.driver.send(asked)
    await world.catch_up()
    assert "acme/sales" in (await say(world.api.acme, "runs", "list", "--open")).output
    assert "requested" in (await say(world.api.admin, "runs", "show", "r1")).output
    told = str((await say(world.api.acme, "runs", "cancel", "r3", code=1)).exception)
    assert "no run 'r3'" in told and "r1, r2" in told
    assert "acme/r1" in (await say(world.api.acme, "runs", "cancel", "r1", "--reason", "a slip")).output
    assert "no run 'r1'" in str((await say(world.api.globex, "runs", "cancel", "r1", code=1)).exception)
    (event,) = [each for each in await world.api.events("training-request") if isinstance(each, TrainingWithdrawn)]
    assert (event.company, event.run, event.reason) == ("acme", "r1", "a slip")
    await world.driver.send(TrainingRefused(id="end", run="r1", reason="withdrawn", detail="", **about))
    await world.catch_up()
    assert "withdrawn" in (await say(world.api.acme, "runs", "list")).output
    assert "ended already" in str((await say(world.api.acme, "runs", "cancel", "r1", code=1)).exception)


async def test_open_runs_are_found_behind_any_number_that_have_ended(world: World, say: Say) -> None:
    """The limit is of what is shown, and a listing goes on where it ended."""
    about: dict[str, Any] = {"time": 1, "company": "acme"}
    for n in range(7):
        wish = {"id": f"r{n}", "correlation": f"r{n}", "method": "lora", "base_model": "b", "role": "sales"}
        await world.driver.send(TrainingRequested(**about, **wish))
        if n not in (3, 5, 6):
            await world.driver.send(
                TrainingRefused(**about, id=f"e{n}", correlation=f"r{n}", run=f"r{n}", reason="no_data", detail="")
            )
    await world.catch_up()

    async def listed(*more: str) -> Any:
        return json.loads((await say(world.api.acme, "runs", "list", "--open", "--json", *more)).output)

    assert [row["run"] for row in (await listed("--limit", "1"))["rows"]] == ["r3"]
    first = await listed("--limit", "2")
    rest = await listed("--limit", "2", "--after", first["next"])
    assert [row["run"] for row in (*first["rows"], *rest["rows"])] == ["r3", "r5", "r6"]
    assert (rest["next"], [row["run"] for row in (await listed())["rows"]]) == (None, ["r3", "r5", "r6"])


async def test_tokens_are_told_by_adapter_and_what_they_cost_at_ones_own_prices(world: World, say: Say) -> None:
    about = {"company": "acme", "time": 1, "correlation": "c", "text": "", "finish_reason": "stop", "model": "tiny"}
    for n, adapter in enumerate(("acme/ops", "acme/ops", None)):
        tokens = {"prompt_tokens": 1_000_000, "cached_tokens": 500_000, "completion_tokens": 100_000}
        await world.driver.send(InferenceCompleted(**about, **tokens, id=f"a{n}", request=f"q{n}", adapter=adapter))
    await world.catch_up()
    said = (await say(world.api.acme, "costs")).output
    assert "over HTTP" in said and "rillfold_serve_tokens_total" in said, "what is not among them"
    assert "acme/ops" in said and "2,000,000" in said and "acme: base" in said and "cost" not in said
    priced = ("costs", "--prices", "2", "1", "10", "--json")
    told = json.loads((await say(world.api.admin, *priced, "--company", "acme")).stdout)
    assert "over HTTP" in told["left_out"]
    rows = told["rows"]
    assert {row["adapter"]: row["cost"] for row in rows} == {"acme/ops": 5.0, "base": 2.5}
    assert "5.0000" in (await say(world.api.acme, *priced[:-1])).output
    assert json.loads((await say(world.api.globex, *priced)).output)["rows"] == []


async def test_all_is_said_on_one_screen_and_what_is_wrong_by_the_exit_code(world: World, say: Say) -> None:
    asked = TrainingRequested(id="r1", time=1, correlation="r1", company="acme", method="lora", base_model="b")
    await world.driver.send(asked)
    told = json.loads((await say(world.api.admin, "status", "--json", code=1)).output)
    assert "behind" in told["projections"]["told"][0]
    assert len(told["workers"]["told"]) > 1, "each line by itself"
    assert {what for what, each in told.items() if each["wrong"]} - {"disk"} == {"workers"}
    workers = "\n".join(told["workers"]["told"])
    assert "no fold worker runs" in workers and "`rillfold worker fold`" in workers
    await world.catch_up()
    said = (await say(world.api.admin, "status", code=1)).output
    assert "no fold, sink, bridge, serve runs" in said and "1 events of training-request wait for one" in said
    assert "letters      none waits" in said and "disk         " in said
    assert "know the whole log" in said and "1 open: acme/r1" in said
    mine = (await say(world.api.globex, "status")).output
    assert "0 open" in mine and "that takes the admin's key" in mine and "disk  " not in mine
    away = {"RILLFOLD_API_URL": "http://127.0.0.1:9", "RILLFOLD_API_KEY": world.api.admin}
    gone = await asyncio.to_thread(CliRunner().invoke, rillfold, ["status"], env=away)
    assert (gone.exit_code, "! api" in gone.output, "rillfold api" in gone.output) == (1, True, True)
