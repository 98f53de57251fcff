"""The judge notices what it is there for: made-up changelogs and moments, each wrong in one thing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
import pytest

from projections.companies import COMPANIES
from schemas.company import CompanyRegistered
from schemas.envelope import Event, Origin
from schemas.rejected import Rejected
from schemas.topics import TopicNames
from streams.fold.batch import Batch, NoEvent
from streams.fold.commit import Ports
from streams.fold.dead_letter import dead_letter
from streams.fold.failpoint import FailPoint
from streams.fold.folding import Folding
from streams.log.outgoing import to_outgoing
from streams.log.port import Extent, Record
from streams.state.changelog import Loss, Marker, Rows, claim_record, loss_record, marker_record
from streams.state.store import POSITION, MemoryStore
from tests.kill.letters import Letterbox, spot_of
from tests.kill.lives import Life, Nap
from tests.kill.owners import Owners
from tests.kill.written import clean, folded_once, prefix, replayed, sparse

CHANGELOG, NEXT = "jobs-v2-changelog", "jobs-v3-changelog"
Line = tuple[float, tuple[bytes, bytes | None]]


def written(*lines: Line, changelog: str = CHANGELOG) -> list[Record]:
    """By second and record."""
    return [Record(changelog, 0, n, int(at * 1000), key, value) for n, (at, (key, value)) in enumerate(lines)]


def claimed(at: float, owner: str) -> Line:
    return at, claim_record(owner)


def folded(at: float, next_: int, topic: str = "source") -> Line:
    return at, marker_record(Marker(topic, 0, next_))


def row(at: float, key: str, offset: int, value: int = 0) -> Line:
    return at, (key.encode(), msgspec.json.encode({"at": ("source", 0, offset), "row": {"n": value}}))


def owners(lives: Mapping[str, Life], *histories: Sequence[Record], died: Sequence[float] = ()) -> Owners:
    by_changelog = {history[0].topic: history for history in histories}
    return Owners(lives, died, lambda changelog, _: by_changelog[changelog])


HANDED_OVER = written(claimed(1, "a"), folded(2, 10), claimed(100, "b"), folded(101, 20))


@pytest.mark.parametrize(
    ("what", "a", "offset", "first", "again", "excused"),
    [
        ("who was shut out alive said again what it had in hand", Life([0.5]), 12, 101.0, 103.0, True),
        ("that was folded before it was shut out", Life([0.5]), 9, 101.0, 103.0, False),
        ("it was dead by then, and who took over had to look", Life([0.5, 90.0]), 12, 80.0, 101.0, False),
        ("it was at work, and who took over had to look", Life([0.5]), 12, 80.0, 101.0, False),
        ("it was asleep with it in hand", Life([0.5], [Nap(82.0, 102.0)]), 12, 80.0, 101.0, True),
        ("nobody is late for so long", Life([0.5]), 12, 140.0, 160.0, False),
        ("who was asleep is", Life([0.5], [Nap(80.0, 155.0)]), 12, 140.0, 160.0, True),
        ("who was asleep in another's turn is not", Life([0.5], [Nap(140.0, 155.0)]), 12, 135.0, 160.0, False),
        ("it was said twice before anybody else came", Life([0.5]), 5, 2.0, 3.0, False),
    ],
)
def test_only_who_was_shut_out_alive_says_again_what_it_had_in_hand(
    what: str, a: Life, offset: int, first: float, again: float, excused: bool
) -> None:
    judge = owners({"a": a, "b": Life([50.0])}, HANDED_OVER)
    assert judge.excused([CHANGELOG], ("source", 0, offset), first, again) is excused, what


def test_a_next_version_says_nothing_again_and_the_version_before_may_be_late() -> None:
    old = written(claimed(1, "a"), folded(2, 10))
    new = written(claimed(100, "b"), folded(110, 5), changelog=NEXT)
    judge = owners({"a": Life([0.5]), "b": Life([50.0])}, old, new)
    assert not judge.excused([CHANGELOG, NEXT], ("source", 0, 3), 2.0, 105.0)
    assert judge.excused([CHANGELOG, NEXT], ("source", 0, 12), 99.0, 105.0)


def test_what_a_dying_broker_has_not_acknowledged_is_sent_again() -> None:
    judge = owners({"a": Life([0.5]), "b": Life([50.0])}, HANDED_OVER, died=[50.0])
    assert judge.excused([CHANGELOG], ("source", 0, 12), 49.0, 55.0)
    assert not judge.excused([CHANGELOG], ("source", 0, 12), 10.0, 55.0)
    assert not judge.excused([CHANGELOG], ("source", 0, 12), 55.0, 56.0)
    assert not judge.excused([CHANGELOG], ("source", 0, 9), 49.0, 55.0), "it was acknowledged: a marker has passed it"


def test_a_marker_goes_back_only_where_a_loss_was_accepted() -> None:
    accepted = 3.0, loss_record(Loss("source", 0, 10, 4))
    folded_once(written(row(1, "k", 7), folded(1, 10), accepted, folded(3, 4), row(4, "k", 5), folded(4, 6)))
    for back in (
        written(folded(1, 10), folded(3, 4)),
        written(folded(1, 10), accepted, folded(3, 5)),
        written(folded(1, 10), row(2, "k", 9), folded(2, 11)),
        written(folded(1, 10), (3.0, loss_record(Loss("source", 0, 9, 4))), folded(3, 4)),
    ):
        with pytest.raises(AssertionError):
            folded_once(back)


async def test_what_a_fold_writes_begins_where_the_marker_before_it_stands() -> None:
    """Batch by batch, and each once more, as after a crash."""
    history: list[Record] = []

    async def append(changelog: str, partition: int, rows: Rows) -> int:
        history.extend(Record(changelog, partition, len(history) + n, 1, *each) for n, each in enumerate(rows))
        return len(history) - 1

    async def publish(_: Sequence[Event]) -> None:
        return None

    names = TopicNames()
    folding = Folding([COMPANIES], names, Ports(publish, append, FailPoint()))
    folding.open(COMPANIES, 0, MemoryStore()).restored()
    folding.begin("company-data", 0, Extent(0, 9))
    for start in range(0, 9, 3):
        records = [registered(n, names) for n in range(start, start + 3)]
        for _ in range(2):
            await folding.step(Batch("company-data", 0, start, start + 3, records))
    folded_once(history)
    assert len(clean(replayed(history))) == 9


def registered(n: int, names: TopicNames) -> Record:
    fields: dict[str, Any] = {"id": f"i{n}", "company": f"c{n}", "time": n, "correlation": f"i{n}"}
    sent = to_outgoing(CompanyRegistered(**fields, name=f"Name {n}"), names)
    return Record(sent.topic, 0, n, 1_000 + n, sent.key, sent.value)


@pytest.mark.parametrize("anew", [b"new", b"old"], ids=["other bytes", "the same bytes"])
def test_of_two_records_at_one_offset_of_a_topic_that_was_made_anew_each_has_its_letter(anew: bytes) -> None:
    old, new = (Record("source", 0, 7, time, b"k", value) for time, value in ((1_000, b"old"), (2_000, anew)))
    refused = {spot_of(record): record for record in (old, new)}
    both = letters_about(old, new)
    both.check(refused, list(refused))
    with pytest.raises(AssertionError, match="1 refused records lack a letter"):
        letters_about(old).check(refused, list(refused))
    with pytest.raises(AssertionError, match="told again for no reason"):
        letters_about(old, new, new).check_repeats(lambda *_: False)


def letters_about(*refused: Record) -> Letterbox:
    letters = Letterbox()
    for n, record in enumerate(refused):
        why = Rejected("bad_bytes", "", Origin(record.topic, record.partition, record.offset))
        event = dead_letter(NoEvent(record, why))
        letters.put(Record("dead-letter", 0, n, 3_000 + n, b"", to_outgoing(event, TopicNames("")).value))
    return letters


def test_a_copy_lacks_only_what_was_cleaned_away_and_written_again() -> None:
    history = written(row(1, "k", 0, 1), folded(1, 1), row(2, "k", 1, 2), folded(2, 2), row(3, "k", 2, 3), folded(3, 3))
    at_2 = {key or b"": value or b"" for *_, key, value, _ in history[:4]} | {POSITION: (3).to_bytes(8, "big")}
    assert prefix(history, at_2)
    older = at_2 | {b"k": history[0].value or b""}
    assert not prefix(history, older)
    assert not sparse(history, set(), older)
    assert sparse(history, {2}, older)
    assert sparse(history, {2}, {key: value for key, value in at_2.items() if key != b"k"})
    assert not sparse(history, {2}, at_2 | {b"k": b"strange"})
