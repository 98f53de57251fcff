"""What Postgres refuses for what it holds goes aside by name; every other row gets in, of whatever company."""

from __future__ import annotations

from collections.abc import AsyncIterator
from hashlib import sha256
from typing import Any

import msgspec
import psycopg
import pytest

from projections.companies import COMPANIES, Company
from projections.memories import MEMORIES
from rillfold.embedded.ports import free_port
from rillfold.embedded.state import Endpoints
from streams.errors import DatabaseAway, DatabaseCannot, Fenced, ReadModelBroken
from streams.log.memory import MemoryLog
from streams.log.port import Outgoing, TopicSpec
from streams.read_model.database import about_content, named
from streams.read_model.postgres import PostgresSink
from streams.read_model.reads import Reads
from streams.read_model.sink import Change, Changes, Follower
from streams.state.changelog import Marker, RowCodec, marker_record, refusal_key, refusal_record, topic_of
from streams.state.refusal import Refusal

PROJECTIONS = (COMPANIES, MEMORIES)
CHANGELOG = topic_of(COMPANIES)
ROWS = RowCodec(Company)


class Written:
    """A changelog, as a fold or a stranger has written it, and a sink that follows it."""

    def __init__(self, sink: PostgresSink) -> None:
        self.log, self.sink = MemoryLog(), sink
        self.follower = Follower(sink, [COMPANIES])
        self.offset = 0

    async def write(self, *pairs: tuple[bytes, bytes | None]) -> None:
        await self.log.create([TopicSpec(CHANGELOG, 1)])
        self.offset += 1
        marked = [*pairs, marker_record(Marker("company-data", 0, self.offset))]
        await self.log.append([Outgoing(CHANGELOG, key, value, partition=0) for key, value in marked])
        end = (await self.log.ends(CHANGELOG))[0]
        async with self.log.subscribe("sink", [CHANGELOG]) as member:
            while self.follower.sight().positions.get((CHANGELOG, 0)) != end:
                await self.follower.step(member, self.log)


@pytest.fixture
async def written(stack: Endpoints, schema: str, query: Any) -> AsyncIterator[Written]:
    assert stack.postgres_dsn is not None
    async with PostgresSink(stack.postgres_dsn, PROJECTIONS, schema) as sink:
        yield Written(sink)


def row(company: str, name: str = "n") -> tuple[bytes, bytes]:
    return company.encode(), ROWS.encode(Company(company=company, name=name), "company-data", 0, 0)


def raw(json: bytes) -> bytes:
    return b'{"at":["company-data",0,0],"row":%b}' % json


FINE = raw(b'{"company":"c","name":"n"}')
LONG = b"".join(b"%03d" % (n * 7919 % 1000) for n in range(1000))
WRONG: dict[str, tuple[bytes, bytes, str | None]] = {
    "a key of 3,000 characters": (b"acme/" + LONG, FINE, "54000"),
    "a company of 3,000 characters": (
        b"".join(b"%03d" % (n * 7919 % 1000) for n in range(1000)) + b"/x",
        FINE,
        "54000",
    ),
    "half a pair of surrogates": (b"acme/s", raw(b'{"name":"\\ud800"}'), ""),
    "a number beyond numeric": (b"acme/n", raw(b'{"name":1e400000}'), "22003"),
    "nested too deep": (b"acme/d", raw(b"[" * 60_000 + b"]" * 60_000), None),
    "bytes that are no UTF-8": (b"acme/u", raw(b'{"name":"\xff\xfe"}'), "22021"),
    "no JSON at all": (b"acme/j", b"\xff\x00 nothing", ""),
    "an offset beyond bigint": (b"acme/o", b'{"at":["t",0,99999999999999999999],"row":{}}', "22003"),
    "another form": (b"acme/f", b'{"at":1}', ""),
}


async def test_they_go_aside_and_the_others_get_in(written: Written, query: Any):
    right = [row(f"before-{n}") for n in range(40)], [row(f"after-{n}") for n in range(30)]
    await written.write(*right[0], *((key, value) for key, value, _ in WRONG.values()), *right[1])
    assert await query("SELECT count(*) FROM companies") == [(70,)]
    found = {
        digest: facts
        for digest, *facts in await query(
            "SELECT key_sha256, projection, version, partition, key, company, state, reason FROM set_aside"
        )
    }
    for what, (key, _, should) in WRONG.items():
        projection, version, partition, shown, company, state, reason = found.pop(sha256(key).hexdigest())
        assert (projection, version, partition) == ("companies", 1, 0), what
        assert (shown, company) == (key.decode()[:200], key.decode().partition("/")[0][:200]), what
        assert reason, what
        assert should in (state, None), f"{what}: {state} {reason}"
    assert not found
    assert written.sink.set_aside == written.follower.counts()["rows_set_aside"][1] == len(WRONG)
    assert await query("SELECT next FROM positions") == [(1,)]
    # And it goes on.
    await written.write(row("later"))
    assert await query("SELECT count(*) FROM companies") == [(71,)]
    assert await query("SELECT count(*) FROM set_aside") == [(len(WRONG),)]


async def test_a_key_that_is_no_text_is_spelled_and_its_row_gets_in(written: Written, query: Any):
    await written.write((b"acme/\xff\x00", FINE))
    assert await query("SELECT key FROM companies_v1") == [("acme/\\xff\ufffd",)]


async def test_a_record_under_a_key_of_ours_that_is_none_is_left_out(written: Written, query: Any):
    await written.write(
        (b"\x00marker/x/0", b"nonsense"), (b"\x00refused/x/0/1", None), (b"\x00?", b"\xff"), row("acme")
    )
    assert await query("SELECT count(*) FROM companies") == [(1,)]
    assert await query("SELECT count(*) FROM refused") == [(0,)]


async def test_the_row_that_stood_there_goes_and_one_that_fits_comes_back(written: Written, query: Any):
    await written.write(row("acme", "first"), row("other"))
    await written.write((b"acme", raw(b'{"company":"acme","name":1e400000}')))
    assert await query("SELECT key FROM companies_v1") == [("other",)]
    assert await query("SELECT key, changelog_offset FROM set_aside") == [("acme", 3)]
    await written.write(row("other", "again"))
    assert await query("SELECT count(*) FROM set_aside") == [(1,)]
    await written.write(row("acme", "third"))
    assert await query("SELECT name FROM companies WHERE company = 'acme'") == [("third",)]
    assert await query("SELECT count(*) FROM set_aside") == [(0,)]


async def test_a_row_that_is_removed_is_no_longer_aside(written: Written, query: Any):
    await written.write((b"acme/s", raw(b'{"name":"\\ud800"}')))
    await written.write((b"acme/s", None))
    assert await query("SELECT count(*) FROM set_aside") == [(0,)]


async def test_another_sink_knows_what_is_aside(stack: Endpoints, schema: str, written: Written, query: Any):
    await written.write((b"acme", raw(b'{"name":"\\ud800"}')))
    assert stack.postgres_dsn is not None
    async with PostgresSink(stack.postgres_dsn, PROJECTIONS, schema) as sink:
        successor = Written(sink)
        successor.log, successor.offset = written.log, 1
        await successor.write(row("acme", "fits"))
    assert await query("SELECT count(*) FROM set_aside") == [(0,)]
    assert await query("SELECT name FROM companies") == [("fits",)]


async def test_many_wrong_rows_among_many_right_ones(written: Written, query: Any):
    wrong = {n for n in range(3_000) if n % 100 == 7 or 2_000 < n < 2_100}
    pairs = [(f"c{n}".encode(), raw(b'{"name":1e400000}') if n in wrong else row(f"c{n}")[1]) for n in range(3_000)]
    await written.write(*pairs)
    aside = {int(key[1:]) for (key,) in await query("SELECT key FROM set_aside")}
    inside = {int(key[1:]) for (key,) in await query("SELECT key FROM companies_v1")}
    assert (aside, inside) == (wrong, set(range(3_000)) - wrong)
    assert written.sink.beats > 100


async def test_a_late_holder_sets_nothing_aside(stack: Endpoints, schema: str, written: Written, query: Any):
    await written.write(row("acme"))
    assert stack.postgres_dsn is not None
    async with PostgresSink(stack.postgres_dsn, PROJECTIONS, schema) as successor:
        await successor.take(CHANGELOG, 0)
        await written.log.append([Outgoing(CHANGELOG, b"acme", raw(b'{"name":"\\ud800"}'), partition=0)])
        with pytest.raises(Fenced):
            async with written.log.subscribe("sink", [CHANGELOG]) as member:
                for _ in range(4):
                    await written.follower.step(member, written.log)
    assert await query("SELECT count(*) FROM set_aside") == [(0,)]
    assert await query("SELECT count(*) FROM companies") == [(1,)]


async def test_each_is_said_with_a_name_and_a_remedy(written: Written, caplog: pytest.LogCaptureFixture):
    await written.write((b"acme/s", raw(b'{"name":"\\ud800"}')))
    said = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert any("row of companies v1, partition 0" in one and "SELECT * FROM set_aside" in one for one in said)
    assert not any("does not answer" in one for one in said)


async def test_refused_events_stand_in_a_table_of_their_own(written: Written, query: Any):
    refused = Refusal(
        topic="company-data",
        partition=0,
        offset=17,
        projection="companies",
        version=1,
        company="acme",
        event="e\x00",
        reason="raised",
        detail="ValueError: \x00",
    )
    for _ in range(2):
        await written.write(refusal_record(refused))
    assert await query('SELECT projection, version, topic, partition, "offset", company, reason FROM refused') == [
        ("companies", 1, "company-data", 0, 17, "acme", "raised")
    ]
    await written.write(refusal_record(msgspec.structs.replace(refused, company="other")))
    await written.write(refusal_record(msgspec.structs.replace(refused, offset=18)))
    assert await query('SELECT "offset", company FROM refused ORDER BY 1') == [(17, "other"), (18, "acme")]
    await written.write((refusal_key(refused.topic, refused.partition, refused.offset), None))
    assert await query('SELECT "offset" FROM refused') == [(18,)], "another record stands there now"
    await written.sink.empty(COMPANIES, CHANGELOG, 0)
    assert await query("SELECT count(*) FROM refused") == [(0,)]


async def test_what_is_no_rows_fault_is_said_as_what_it_is(written: Written, query: Any, schema: str):
    await written.write(row("acme"))
    await query("DROP TABLE companies_v1 CASCADE")
    await written.sink.take(CHANGELOG, 0)
    with pytest.raises(ReadModelBroken, match="42P01"):
        await written.write(row("acme"))


async def statements_of(sink: PostgresSink, refused: int, wrong: int) -> tuple[int, int]:
    """How often the sink asks Postgres for one write of so many, and how often it shows that it gets on."""
    connection = await sink._connect()
    sent, execute = 0, psycopg.AsyncCursor.execute

    class Counting(psycopg.AsyncCursor[Any]):
        async def execute(self, *given: Any, **more: Any) -> Any:
            nonlocal sent
            sent += 1
            return await execute(self, *given, **more)

    connection.cursor_factory = Counting
    refusals = [
        Refusal(
            topic="company-data",
            partition=0,
            offset=n,
            projection="companies",
            version=1,
            company="acme\x00",
            event=f"e{n}",
            reason="raised",
            detail="x" * 100,
        )
        for n in range(refused)
    ]
    rows = [Change(b"acme/%d" % n, 1 + n, None, "no row of ours") for n in range(wrong)]
    beats = sink.beats
    await sink.write([Changes(COMPANIES, CHANGELOG, 0, 99_999, rows, (), refusals)])
    return sent, sink.beats - beats


async def test_what_is_refused_and_set_aside_enters_in_chunks_with_a_beat_each(written: Written, query: Any):
    await written.write(row("c0"))
    sent, beats = await statements_of(written.sink, 20_000, 6_000)
    assert 10 < sent < 50
    assert beats >= 13
    assert await query("SELECT count(*) FROM refused") == [(20_000,)]
    assert await query("SELECT count(*) FROM set_aside") == [(6_000,)]


async def test_a_row_is_set_aside_only_where_no_newer_one_stands(written: Written, query: Any):
    await written.write((b"acme", raw(b'{"name":1e400000}')), row("other"))
    await written.write(row("acme", "newer"))
    older = [Change(b"acme", 0, None, "no row of ours")]
    await written.sink.write([Changes(COMPANIES, CHANGELOG, 0, 99, older, ())])
    assert await query("SELECT count(*) FROM set_aside") == [(0,)]
    assert await query("SELECT name FROM companies WHERE company = 'acme'") == [("newer",)]


async def test_a_row_that_is_not_set_aside_takes_no_other_away(written: Written, query: Any):
    await written.write((b"acme", raw(b'{"name":1e400000}')), row("acme/other"))
    # As if a later form were aside already: what comes late neither takes its entry nor what stands there.
    await query("UPDATE set_aside SET changelog_offset = 50")
    await query(
        "INSERT INTO companies_v1 SELECT 'acme', partition, company, row, topic, source_partition, source_offset, 10 "
        "FROM companies_v1"
    )
    late = [Change(b"acme", 20, None, "no row of ours")]
    await written.sink.write([Changes(COMPANIES, CHANGELOG, 0, 99, late, ())])
    assert await query("SELECT changelog_offset FROM set_aside") == [(50,)]
    assert await query("SELECT changelog_offset FROM companies_v1 WHERE key = 'acme'") == [(10,)]


async def test_what_is_aside_is_tried_again_when_its_changelog_is_read_again(written: Written, query: Any):
    """The remedy of docs/operations.md, with the sink at work."""
    rule = "CHECK (row->>'name' <> 'odd')"
    await written.write(row("acme"), row("gone"), row("other", "old"))
    await query(f"ALTER TABLE companies_v1 ADD CONSTRAINT rule {rule}")
    await written.write(row("acme", "odd"), (b"gone", None), row("other", "new"), (b"acme/s", WRONG_ROWS[0][1]))
    assert await query("SELECT key FROM set_aside ORDER BY key") == [("acme",), ("acme/s",)]
    await query("ALTER TABLE companies_v1 DROP CONSTRAINT rule")
    await query(f"UPDATE sink_positions SET next = 0, epoch = epoch + 1 WHERE changelog = '{CHANGELOG}'")
    with pytest.raises(Fenced):
        await written.write(row("later"))
    # As `Follower.run` does: it takes the partition anew, and so reads from 0.
    await written.write(row("last"))
    inside = await query("SELECT company, name FROM companies ORDER BY company")
    assert inside == [("acme", "odd"), ("last", "n"), ("later", "n"), ("other", "new")]
    assert await query("SELECT key FROM set_aside") == [("acme/s",)]
    assert await query("SELECT next FROM positions") == [(written.offset,)]


FAULTS: dict[str, str] = {
    "a column that no row fills": "ADD COLUMN region text; UPDATE companies_v1 SET region = 'eu'; "
    "ALTER TABLE companies_v1 ALTER COLUMN region SET NOT NULL",
    "a narrower text": "ALTER COLUMN company TYPE varchar(20)",
    "a narrower number": "ALTER COLUMN source_offset TYPE int",
    "a constraint": "ADD CONSTRAINT wrong CHECK (source_offset < 0) NOT VALID",
}
TRIGGERS: dict[str, str] = {
    "a trigger": "BEFORE INSERT OR UPDATE",
    "a trigger for rows that stand there": "BEFORE UPDATE",
}
WRONG_ROWS = [(f"c{n}".encode(), raw(b'{"name":1e400000}')) for n in range(3)]


async def broken(query: Any, what: str) -> str:
    """Breaks the table as an operator might. Returns what takes it back."""
    await query("CREATE TABLE before AS SELECT row, changelog_offset FROM companies_v1")
    if what in TRIGGERS:
        await query(
            "CREATE FUNCTION wrong() RETURNS trigger LANGUAGE plpgsql AS "
            "$$ BEGIN PERFORM (NEW.row->>'company')::int; RETURN NEW; END $$"
        )
        await query(f"CREATE TRIGGER wrong {TRIGGERS[what]} ON companies_v1 FOR EACH ROW EXECUTE FUNCTION wrong()")
        return "DROP TRIGGER wrong ON companies_v1"
    back = {
        "a column that no row fills": "DROP COLUMN region",
        "a narrower text": "ALTER COLUMN company TYPE text",
        "a narrower number": "ALTER COLUMN source_offset TYPE bigint",
        "a constraint": "DROP CONSTRAINT wrong",
    }
    await query("DROP VIEW companies")
    await query(f"ALTER TABLE companies_v1 {FAULTS[what]}")
    return f"ALTER TABLE companies_v1 {back[what]}"


@pytest.mark.parametrize("what", [*FAULTS, *TRIGGERS])
async def test_a_fault_of_the_table_stops_the_sink_and_nothing_moves(
    stack: Endpoints, schema: str, written: Written, query: Any, what: str
):
    assert stack.postgres_dsn is not None
    await written.write(*(row(f"c{n}") for n in range(20)))
    mend = await broken(query, what)
    position = await query("SELECT next FROM sink_positions")
    for _ in range(2):
        # Also where a row is really wrong, and the others would have gone in.
        with pytest.raises(ReadModelBroken, match="companies_v1") as caught:
            await written.write(*(row(f"c{n}", "new") for n in range(20)), *WRONG_ROWS)
        assert "set aside" in str(caught.value)
    assert await query("SELECT row, changelog_offset FROM companies_v1 EXCEPT TABLE before") == []
    assert await query("SELECT count(*) FROM companies_v1") == [(20,)]
    assert await query("SELECT count(*) FROM set_aside") == [(0,)]
    assert await query("SELECT next FROM sink_positions") == position
    await query(mend)
    async with PostgresSink(stack.postgres_dsn, PROJECTIONS, schema) as sink:
        successor = Written(sink)
        successor.log, successor.offset = written.log, 3
        await successor.write(row("later"))
    inside = await query("SELECT company, name FROM companies ORDER BY company")
    assert ("c19", "new") in inside and ("later", "n") in inside
    assert await query("SELECT key FROM set_aside ORDER BY key") == [("c0",), ("c1",), ("c2",)]


async def test_the_proof_leaves_nothing_in_the_table(written: Written, query: Any):
    await written.write(row("acme"))
    before = await query("SELECT * FROM companies_v1")
    await written.write(*WRONG_ROWS)
    assert await query("SELECT * FROM companies_v1") == before
    assert await query("SELECT count(*) FROM set_aside") == [(3,)]


STATES = {"08006": DatabaseAway, "57P01": DatabaseAway, "53100": DatabaseCannot, "40001": DatabaseCannot}


async def test_a_postgres_that_is_not_there_is_one_line() -> None:
    """What a process says last is looked at by whoever started it; the driver's own words are two lines."""
    with pytest.raises(DatabaseAway) as away:
        async with PostgresSink(f"postgresql://u@127.0.0.1:{free_port()}/d", PROJECTIONS, "s"):
            pass
    assert "Connection refused Is the server running" in str(away.value) and "\n" not in str(away.value)


@pytest.mark.parametrize("state", STATES)
def test_that_it_does_not_answer_is_only_said_when_it_does_not(state: str):
    error = psycopg.errors.lookup(state)("detail")
    assert type(named(error)) is STATES[state]
    assert not about_content(error)
    assert ("does not answer" in str(named(error))) == (STATES[state] is DatabaseAway)


async def test_a_question_with_a_key_that_postgres_cannot_hold_finds_nothing(
    stack: Endpoints, schema: str, written: Written
):
    async with Reads(stack.postgres_dsn, schema) as reads:
        assert await reads.row(COMPANIES, "acme\x00") is None
        assert await reads.row(COMPANIES, "acme\ud800") is None
        assert await reads.rows(COMPANIES, "acme\x00", "\x00\ud800", 5) == []


async def test_a_number_beyond_bigint_breaks_nobodys_view(written: Written, query: Any):
    huge = raw(b'{"company":"evil","name":"n","registered_at":99999999999999999999}')
    await written.write(row("acme"), (b"evil", huge))
    assert await query("SELECT company, registered_at FROM companies ORDER BY company") == [("acme", 0), ("evil", None)]
