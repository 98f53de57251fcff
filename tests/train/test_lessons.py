"""Rule 3: what is learned from, what was said of it, and that what is left out was never there. Rules 1 and 2 stand."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from processors.dataset.selection import Selection
from processors.dataset.turns import canonical
from schemas.company import Message, ToolUse
from streams.errors import TooMuchData
from streams.history.places import Places
from streams.log.port import Outgoing
from tests.support.learning import STORED, built, everything, log_of, said, stored, talk


@pytest.mark.parametrize("rule", [1, 2, 3])
async def test_each_rule_gives_the_bytes_that_it_always_gave(rule: int, tmp_path: Path) -> None:
    """The manifests of rules 1 and 2 were written by the releases that had no later one."""
    log = await log_of(stored())
    ranges = [everything("company-data", partition, stop) for partition, stop in ((0, 27), (2, 16), (3, 9))]
    made = await built(log, tmp_path, rule=rule, ranges=ranges)
    assert canonical(made.manifest) + b"\n" == (STORED / f"manifest.rule{rule}.json").read_bytes()


async def only(tmp_path: Path, *records: Outgoing, **how: Any) -> Any:
    """The one row that comes of them."""
    (lesson,) = (await built(await log_of(records), tmp_path, **how)).lessons
    return lesson


async def test_calls_of_any_client_are_written_one_way(tmp_path: Path) -> None:
    one, other = '{"b": [1, 2.50],  "a":"x"}', '{"a":"x","b":[1,2.5]}'
    made = await built(await log_of([talk("Do", ("f", one)), talk("Do", ("f", other))]), tmp_path)
    (lesson,) = made.lessons
    assert lesson.answer.tool_calls == (ToolUse(name="f", arguments=other),)
    assert made.manifest.repeats == 1


@pytest.mark.parametrize(
    "arguments", ['{"a":NaN}', '{"a":1e999}', '{"a":1,"a":2}', "[1]", "x", '{"a":' + "9" * 40 + "}", '{"a":"\\ud800"}']
)
async def test_calls_that_two_readers_may_take_for_two_are_left_out_with_what_follows(
    arguments: str, tmp_path: Path
) -> None:
    made = await built(await log_of([talk("Do", "before", ("f", arguments), "after")]), tmp_path)
    assert [lesson.answer.content for lesson in made.lessons] == ["before"]
    assert made.manifest.left_out == 2


async def test_only_the_key_says_whose_a_record_is(tmp_path: Path) -> None:
    mine = [talk("Mine", "yes"), talk("Keyless", "yes")._replace(key=None)]
    alone = await built(await log_of(mine), tmp_path)
    others = [
        talk("Forged", "yes")._replace(key=b"globex"),
        talk("Forged", "yes")._replace(key=b"acme-2/e"),
        Outgoing("company-data", b"globex", b"acme \xff"),
        Outgoing("company-data", None, b"{acme"),
        talk("Of globex", "acme", company="globex")._replace(key=None),
    ]
    beside = await built(await log_of([*others, *mine]), tmp_path)
    assert beside.rows == alone.rows and len(alone.lessons) == 2
    assert (beside.manifest.records, beside.manifest.rejected) == (2, 0)
    wrong = [
        talk("In another's name", "yes", company="globex")._replace(key=b"acme"),
        Outgoing("company-data", b"acme/x", b"\xff"),
        said("tool.returned", call="c", job="j", tool="f", ok=False)._replace(topic="company-data"),
    ]
    refused = await built(await log_of([*mine, *wrong]), tmp_path)
    assert refused.rows == alone.rows
    assert (refused.manifest.records, refused.manifest.rejected) == (5, 3)


async def test_what_others_write_is_never_decoded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from streams.history import whose

    read: list[bytes | None] = []
    decode = whose.decode

    def counted(value: bytes | None, *rest: Any) -> Any:
        read.append(value)
        return decode(value, *rest)

    monkeypatch.setattr(whose, "decode", counted)
    records = [talk(f"{n}", "yes", company="globex" if n % 4 else "acme") for n in range(40)]
    await built(await log_of(records), tmp_path)
    assert len(read) == 10


async def test_a_build_that_remembers_gives_what_one_without_a_memory_gives(tmp_path: Path) -> None:
    log, places = await log_of(stored()), Places(tmp_path / "places")
    for company in ("acme", "globex", "acme"):
        assert await built(log, tmp_path, company, places=places) == await built(log, tmp_path, company)
    assert list((tmp_path / "places").iterdir())


async def test_rows_carry_the_tools_on_offer_then_and_who_answered(tmp_path: Path) -> None:
    def tool(name: str, at: int) -> Outgoing:
        return said(
            "tool.registered",
            name=name,
            description="d",
            parameters="{}",
            endpoint="http://h/",
            auth={"kind": "none"},
            at=at,
        )

    records = [
        talk("None yet", "1", time=1),
        tool("b", 10),
        tool("a", 20),
        talk("Both", "2", agent="sales"),
        said("tool.revoked", name="b"),
        talk("One", "3"),
        talk("Elsewhere, before", "4", entity="x1")._replace(timestamp=15, partition=3),
        talk("Elsewhere, after", "5", entity="x1")._replace(timestamp=25, partition=3),
    ]
    made = await built(await log_of([record._replace(partition=record.partition or 0) for record in records]), tmp_path)
    names = {
        lesson.answer.content: [tool["name"] for tool in json.loads(lesson.tools or "[]")] for lesson in made.lessons
    }
    assert names == {"1": [], "2": ["a", "b"], "3": ["a"], "4": ["b"], "5": ["a"]}
    assert {lesson.agent for lesson in made.lessons} == {"desk", "sales"}
    assert b"offset" not in made.rows and b"company-data" not in made.rows
    # From a later offset on, what was registered before is read for its tools alone.
    later = await built(
        await log_of([r._replace(partition=0) for r in records[:4]]),
        tmp_path,
        ranges=[everything("company-data", 0, 4, 3)],
    )
    (lesson,) = later.lessons
    assert [tool["name"] for tool in json.loads(lesson.tools or "")] == ["a", "b"]
    assert later.manifest.tools_from == (everything("company-data", 0, 3),)
    assert later.manifest.records == 1


GOOD, BAD = {"good": True}, {"good": False}
BETTER = {"correction": {"role": "assistant", "content": "", "tool_calls": [{"name": "f", "arguments": '{"a": 2}'}]}}
CALL_2 = Message(role="assistant", tool_calls=(ToolUse(name="f", arguments='{"a":2}'),))


@pytest.mark.parametrize(
    ("words", "good", "corrected"),
    [
        ([], None, False),
        ([GOOD], True, False),
        ([BAD], False, False),
        ([BAD, GOOD], True, False),
        ([GOOD, BAD], False, False),
        ([BETTER], True, True),
        ([BETTER, GOOD], True, False),
        ([BETTER, BAD], True, True),
        ([BAD | BETTER], True, True),
        ([{}], None, False),
        ([BAD | {"company": "globex"}], None, False),
        ([BAD | {"turn": 1}], False, False),
        ([BAD | {"turn": 7}], None, False),
        ([BAD | {"about": "story"}], False, False),
        ([BAD | {"about": "nobody"}], None, False),
    ],
)
async def test_the_last_word_wins(
    words: list[dict[str, Any]], good: bool | None, corrected: bool, tmp_path: Path
) -> None:
    first = talk("Do", ("f", '{"a": 1}'), id="e1", correlation="story")
    feedback = [said("feedback.given", {"about": "e1", **word}) for word in words]
    lesson = await only(tmp_path, first, *feedback)
    call_1 = Message(role="assistant", tool_calls=(ToolUse(name="f", arguments='{"a":1}'),))
    assert lesson.good is good
    assert (lesson.answer, lesson.rejected) == ((CALL_2, call_1) if corrected else (call_1, None))
    unheard = await only(tmp_path, first, *feedback, select=Selection(outcomes=False))
    assert (unheard.good, unheard.answer, unheard.rejected) == (None, call_1, None)


@pytest.mark.parametrize(
    ("replies", "good"),
    [([("f", True)], True), ([("f", False)], False), ([("f", False), ("f", True)], True), ([("g", False)], False)],
)
async def test_tools_replies_judge_the_answers_of_their_job(
    replies: list[tuple[str, bool]], good: bool, tmp_path: Path
) -> None:
    output = {
        "agent": "desk",
        "prompt": "Do",
        "output": "",
        "tool_calls": [{"name": "f", "arguments": "{}"}],
        "success": True,
    }
    records = [said("agent_output.ingested", output, correlation="job-1")]
    records += [
        said("tool.returned", call=f"c{n}", job="job-1", tool=tool, ok=ok, at=n + 1)
        for n, (tool, ok) in enumerate(replies)
    ]
    records.append(said("tool.returned", call="c", job="job-1", tool="f", ok=not good, company="globex", at=99))
    assert (await only(tmp_path, *records)).good is good


def told_again(at: int) -> Outgoing:
    """The same answer, and who gave it calls it right, as who says nothing does."""
    calls = [{"name": "f", "arguments": '{"a": 1}'}]
    output = {"agent": "desk", "prompt": "Do", "output": "", "tool_calls": calls, "success": True}
    return said("agent_output.ingested", output, id=f"e{at}", correlation=f"job-{at}", at=at)


def tool_says(ok: bool, at: int) -> Outgoing:
    return said("tool.returned", call=f"c{at}", job="job-1", tool="f", ok=ok, at=at)


@pytest.mark.parametrize("machine", [told_again(9), tool_says(True, 9), tool_says(False, 9)], ids=["agent", "ok", "no"])
@pytest.mark.parametrize(
    ("word", "good", "corrected"),
    [(BETTER, True, True), (BAD, False, False), (GOOD, True, False)],
    ids=["corrected", "down", "up"],
)
async def test_what_machines_say_never_takes_a_persons_word_back(
    machine: Outgoing, word: dict[str, Any], good: bool, corrected: bool, tmp_path: Path
) -> None:
    feedback = said("feedback.given", {"about": "e1", **word}, at=5)
    for records in ([told_again(1), feedback, machine], [told_again(1), machine._replace(timestamp=3), feedback]):
        lesson = await only(tmp_path, *records)
        assert (lesson.good, lesson.rejected is not None) == (good, corrected)


async def test_a_later_job_that_repeats_what_was_corrected_and_whose_tool_says_ok_is_taught_the_correction(
    tmp_path: Path,
) -> None:
    feedback = said("feedback.given", {"about": "e1", **BETTER}, at=5)
    ok = said("tool.returned", call="c", job="job-7", tool="f", ok=True, at=8)
    lesson = await only(tmp_path, told_again(1), feedback, told_again(7), ok)
    assert (lesson.answer, lesson.good) == (CALL_2, True)
    taken_back = said("feedback.given", {"about": "job-7", **GOOD}, at=9)
    lesson = await only(tmp_path, told_again(1), feedback, told_again(7), ok, taken_back)
    assert lesson.rejected is None and lesson.answer != CALL_2


async def test_wrong_outputs_are_rows_that_nobody_is_taught(tmp_path: Path) -> None:
    output = {"agent": "desk", "prompt": "Do", "output": "no", "success": False}
    made = await built(await log_of([said("agent_output.ingested", output)]), tmp_path)
    assert [lesson.good for lesson in made.lessons] == [False]
    assert (made.manifest.trained, made.manifest.bad) == (0, 1)


async def test_repeats_count_once_and_what_was_said_of_any_of_them_counts(tmp_path: Path) -> None:
    records = [
        talk("Do", "yes", id="a", entity="x"),
        talk("Do", "yes", id="b"),
        said("feedback.given", about="a", good=False),
    ]
    lesson = await only(tmp_path, *records)
    assert lesson.good is False
    assert (await only(tmp_path, *records, select=Selection(leave_out=("x",)))).good is None


@pytest.mark.parametrize(
    ("select", "wanted"),
    [
        (Selection(agents=("sales",)), {"b"}),
        (Selection(types=("agent_output.ingested",)), {"c"}),
        (Selection(since=20), {"b", "c"}),
        (Selection(since=20, until=30), {"b"}),
        (Selection(leave_out=("e",)), {"a", "c"}),
    ],
)
async def test_a_selection_narrows(select: Selection, wanted: set[str], tmp_path: Path) -> None:
    output = {"agent": "desk", "prompt": "Do", "output": "c", "success": True, "time": 30}
    records = [
        talk("1", "a", time=10),
        talk("2", "b", time=20, agent="sales", entity="e"),
        said("agent_output.ingested", output),
    ]
    made = await built(await log_of(records), tmp_path, select=select)
    assert {lesson.answer.content for lesson in made.lessons} == wanted
    assert made.manifest.select == select


async def test_rows_and_what_is_held_for_them_stay_within_bounds(tmp_path: Path) -> None:
    different = await log_of([talk(f"{n}", "x" * 1000) for n in range(50)])
    with pytest.raises(TooMuchData, match="acme"):
        await built(different, tmp_path, most_bytes=40_000)
    alike = await log_of([talk("same", "x")] * 200)
    with pytest.raises(TooMuchData, match="acme"):
        await built(alike, tmp_path, most_bytes=40_000)
    assert len((await built(alike, tmp_path, most_bytes=200_000)).lessons) == 1


async def test_provenance_says_where_each_story_was_told_and_judged(tmp_path: Path) -> None:
    records = [
        talk("Do", "yes", id="a"),
        talk("Other", "no"),
        talk("Do", "yes", id="b"),
        said("feedback.given", about="b", good=True),
    ]
    made = await built(await log_of(records), tmp_path, provenance=tmp_path / "provenance.jsonl")
    lines = [json.loads(line) for line in (tmp_path / "provenance.jsonl").read_bytes().splitlines()]
    assert [line["story"] for line in lines] == sorted({lesson.story for lesson in made.lessons})
    (judged,) = (line for line in lines if line["judged"])
    partition = judged["from"][0].split("/")[1]
    assert judged["from"] == [f"company-data/{partition}/{offset}" for offset in (0, 2)]
    assert judged["judged"] == {"1": [f"company-data/{partition}/3"]}


ENTITIES = st.sampled_from(["x", "y", None])
TOOL = {"description": "", "parameters": "{}", "endpoint": "http://h/", "auth": {"kind": "none"}}


@st.composite
def record(draw: Any) -> tuple[str | None, Outgoing]:
    """What anybody says, and of which entity."""
    entity, about = draw(ENTITIES), f"e{draw(st.integers(0, 4))}"
    company = draw(st.sampled_from(["acme", "acme", "globex"]))
    match draw(st.sampled_from(["talk", "talk", "feedback", "tool", "gone"])):
        case "talk":
            question, answer = f"q{draw(st.integers(0, 2))}", f"a{draw(st.integers(0, 1))}"
            return entity, talk(question, answer, entity=entity, id=about, company=company)
        case "feedback":
            return entity, said("feedback.given", about=about, good=draw(st.booleans()), entity=entity, company=company)
        case "tool":
            return None, said("tool.registered", TOOL, name=draw(st.sampled_from("fg")), company=company)
    return None, said("tool.revoked", name=draw(st.sampled_from("fg")), company=company)


@given(st.lists(st.tuples(record(), st.integers(0, 3)), max_size=25))
@settings(max_examples=40)
def test_leaving_an_entity_out_gives_the_rows_of_a_log_that_never_held_it(events: list[Any]) -> None:
    """Whatever the order, the clocks and the words about it."""

    async def both() -> None:
        dated = [(entity, one._replace(timestamp=at * 10 + n // 8)) for n, ((entity, one), at) in enumerate(events)]
        whole = await log_of(one for _, one in dated)
        without = await log_of(one for entity, one in dated if entity != "x")
        with TemporaryDirectory() as folder:
            left = await built(whole, Path(folder), select=Selection(leave_out=("x",)))
            never = await built(without, Path(folder))
        assert left.rows == never.rows
        assert (left.manifest.trained, left.manifest.held_out) == (never.manifest.trained, never.manifest.held_out)

    asyncio.run(both())
