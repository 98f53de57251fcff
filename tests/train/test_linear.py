"""What one company can say, over and over, costs what it says: results are those of whoever compares each with each."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from processors import gate
from processors.dataset.marks import Hearing, Marks, Opinion, TakenAt, Telling
from processors.dataset.offers import Offers, OnOffer
from processors.gate import snapshot
from schemas.company import FeedbackGiven, Message, ToolAuth, ToolRegistered, ToolRevoked, ToolUse
from schemas.tools import ToolReturned
from streams.errors import TooMuchData
from tests.support.learning import built, log_of, said, talk

MESSAGES = (
    Message(role="user", content="?"),
    Message(role="assistant", tool_calls=(ToolUse(name="f", arguments="{}"), ToolUse(name="g", arguments="{}"))),
    Message(role="tool", content="!"),
    Message(role="assistant", content="!"),
)
ABOUT = st.sampled_from(["e1", "e2", "s1", "s2"])
ENVELOPE: dict[str, Any] = {"company": "acme", "time": 1}
WORDS = st.one_of(
    st.tuples(st.just("feedback"), ABOUT, st.sampled_from([None, 1, 2, 3, 9, -1]), st.sampled_from([True, False, None]),
              st.sampled_from([None, "better", "best"])),
    st.tuples(st.just("reply"), ABOUT, st.sampled_from("fgh"), st.booleans()),
    st.tuples(st.just("told"), st.sampled_from(["e1", "e2"]), st.sampled_from(["s1", "s2"]),
              st.sampled_from([None, True, False])),
)  # fmt: skip


def each_with_each(words: list[tuple[TakenAt, Any]]) -> dict[int, tuple[bool | None, Message | None]]:
    """By turn, out of every word that anybody ever said, in its order: of machines only where no person spoke."""
    heard: dict[int, list[tuple[bool, TakenAt, bool | None, Message | None]]] = {1: [], 3: []}
    replies: dict[str, dict[str, tuple[TakenAt, bool]]] = {}
    for at, word in words:
        if word[0] == "reply":
            kept = replies.setdefault(word[1], {})
            kept[word[2]] = max((at, word[3]), kept.get(word[2], (at, word[3])))
    for at, word in words:
        if word[0] != "told":
            continue
        if word[3] is not None:
            heard[3].append((False, at, word[3], None))
        for place, said_of in words:
            if said_of[0] == "feedback" and said_of[1] in word[1:3]:
                turn = 3 if said_of[2] is None else said_of[2]
                better = Message(role="assistant", content=said_of[4]) if said_of[4] else None
                if turn in heard and (said_of[3] is not None or better):
                    heard[turn].append((True, place, said_of[3], better))
        mine = replies.get(word[2], {})
        for turn, some in ((1, [mine[t] for t in "fg" if t in mine]), (3, [mine[t] for t in "h" if t in mine])):
            if some:
                heard[turn].append((False, max(at for at, _ in some), all(ok for _, ok in some), None))
    found = {}
    for turn, said_there in heard.items():
        good: bool | None = None
        correction: Message | None = None
        of_people = [each for each in said_there if each[0]]
        for _, _, thumb, better in sorted(of_people or said_there, key=lambda each: each[1]):
            if better is not None:
                good, correction = True, better
            elif thumb:
                good, correction = True, None
            elif correction is None:
                good = False
        if said_there:
            found[turn] = good, correction
    return found


def feedback(at: TakenAt, about: str, turn: int | None, good: bool | None, better: str | None) -> FeedbackGiven:
    correction = Message(role="assistant", content=better) if better else None
    fields = {"id": str(at.offset), "correlation": "x", "turn": turn, "good": good, **ENVELOPE}
    return FeedbackGiven(about=about, correction=correction, **fields)


def reply(at: TakenAt, job: str, tool: str, ok: bool) -> ToolReturned:
    return ToolReturned(id=str(at.offset), correlation="x", job=job, call="c", tool=tool, ok=ok, **ENVELOPE)


def opinions(words: list[tuple[TakenAt, Any]]) -> dict[int, Opinion]:
    marks = Marks()
    for at, (kind, *word) in words:
        if kind == "feedback":
            marks.feedback(feedback(at, *word), at)
        elif kind == "reply":
            marks.reply(reply(at, *word), at)
    hearing = Hearing(marks, MESSAGES)
    for at, (kind, *word) in words:
        if kind == "told":
            hearing.hear(Telling(at, *word))
    return hearing.opinions()


@given(st.lists(st.tuples(st.integers(0, 3), WORDS), max_size=14))
@settings(max_examples=80)
def test_what_decides_is_what_decided_when_every_word_was_kept(said_at: list[tuple[int, Any]]) -> None:
    words = [(TakenAt(at, "company-data", 0, n), word) for n, (at, word) in enumerate(said_at)]
    found = {turn: (opinion.good, opinion.correction) for turn, opinion in opinions(words).items()}
    assert found == each_with_each(words)


async def test_many_words_about_what_was_told_many_times_are_not_heard_anew_for_each(tmp_path: Path) -> None:
    many = 300
    tellings = [talk("Do", "yes", id=f"t{n}", correlation="story") for n in range(many)]
    words = [said("feedback.given", about="story", good=bool(n % 2), at=n) for n in range(many)]
    provenance = tmp_path / "provenance.jsonl"
    made = await built(await log_of([*tellings, *words]), tmp_path, provenance=provenance)
    (judged,) = (json.loads(line)["judged"] for line in provenance.read_bytes().splitlines())
    assert made.lessons[0].good is True
    assert len(judged["1"]) == 2


def test_a_word_that_replaces_another_takes_its_room() -> None:
    marks = Marks()
    sizes = []
    for n in range(100):
        at = TakenAt(n, "company-data", 0, n)
        marks.feedback(feedback(at, "story", None, None, "x" * 1000), at)
        sizes.append(marks.size)
    assert sizes[0] > 1000 and len(set(sizes)) == 1


@pytest.mark.parametrize("field", ["id", "correlation"])
async def test_long_names_count_for_what_they_are(field: str, tmp_path: Path) -> None:
    long = [talk("same", "x", **{field: f"{n:0120d}"}) for n in range(50)]
    with pytest.raises(TooMuchData, match="acme"):
        await built(await log_of(long), tmp_path, most_bytes=50 * (512 + 100))


TOOL = {"endpoint": "http://h/", "auth": {"kind": "none"}}


def tool(name: str, description: str = "", parameters: str = "{}") -> Any:
    return said("tool.registered", TOOL, name=name, description=description, parameters=parameters)


def there(records: list[Any], moment: TakenAt) -> str:
    """The tools on offer, out of every change before that moment."""
    before: list[tuple[int, int, int, Any]] = []
    newest: dict[int, int] = {}
    for at, event in records:
        newest[at.partition] = since = max(at.timestamp, newest.get(at.partition, 0))
        if at.offset < moment.offset if at.partition == moment.partition else since <= moment.timestamp:
            before.append((since, at.partition, at.offset, event))
    standing: dict[str, Any] = {}
    for *_, event in sorted(before, key=lambda each: each[:3]):
        standing.pop(event.name, None)
        if isinstance(event, ToolRegistered):
            standing[event.name] = event
    text = snapshot((each, "") for each in standing.values())
    return "" if text == "[]" else text


CHANGES = st.tuples(
    st.integers(0, 2), st.integers(0, 4), st.sampled_from("fg"), st.sampled_from(["", "d", "bad", None])
)


@given(st.lists(CHANGES, max_size=10), st.lists(st.tuples(*[st.integers(0, 9)] * 3), max_size=6))
@settings(max_examples=80)
def test_tools_are_those_of_whoever_reads_everything_that_came_before(changes: Any, moments: Any) -> None:
    offers, records = Offers(), []
    for offset, (partition, timestamp, name, description) in enumerate(changes):
        at = TakenAt(timestamp, "company-data", partition, offset)
        fields: dict[str, Any] = {"id": "i", "correlation": "x", "name": name, **ENVELOPE}
        if description is None:
            event: Any = ToolRevoked(**fields)
        else:
            parameters = '{"type": "array"}' if description == "bad" else "{}"
            fields |= {"endpoint": "http://h/", "auth": ToolAuth(kind="none"), "parameters": parameters}
            event = ToolRegistered(description=description, **fields)
        offers.take(event, at)
        records.append((at, event))
    standing, marks = offers.standing(), dict[int, str]()
    for partition, timestamp, offset in moments:
        moment = TakenAt(timestamp, "company-data", partition, offset)
        for _ in standing.go_to(offers.moment(moment)):
            pass
        text = standing.text()
        assert text == there(records, moment)
        assert standing.size == len(text)
        assert marks.setdefault(standing.mark, text) == text


async def test_a_tool_is_read_once_and_looked_at_once_however_many_conversations_are_told_between(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read, moved, check, stands = [], [], gate.check_parameters, OnOffer._stands
    monkeypatch.setattr(gate, "check_parameters", lambda parameters: (read.append(1), check(parameters))[1])
    monkeypatch.setattr(OnOffer, "_stands", lambda *change: (moved.append(1), stands(*change))[1])
    many = 60
    pairs = ((tool("small", str(n)), talk(f"{n}", "yes")) for n in range(many))
    made = await built(await log_of([tool("large"), *(record for pair in pairs for record in pair)]), tmp_path)
    assert len(made.lessons) == many
    assert len(read) == many + 1
    assert len(moved) == 2 * (many + 1)


async def test_offers_beyond_the_bound_are_refused_before_they_are_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made, text = [], OnOffer.text
    monkeypatch.setattr(OnOffer, "text", lambda standing: (made.append(standing.size), text(standing))[1])
    records = [tool("large", "d" * 50_000)]
    for n in range(50):
        records += [tool("small", str(n)), talk("Do", "yes")]
    with pytest.raises(TooMuchData, match="acme"):
        await built(await log_of(records), tmp_path, most_bytes=200_000)
    assert sum(made) <= 200_000
