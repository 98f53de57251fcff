"""`rillfold produce` as a stranger runs it: a child process and a real broker."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from rillfold.embedded.stack import Endpoints
from schemas.codec.codec import decode
from schemas.envelope import Event, Origin
from schemas.topics import BY_NAME, TopicNames
from streams.log.kafka.admin import wanted
from streams.log.kafka.log import KafkaLog

RILLFOLD = [sys.executable, "-m", "rillfold", "produce"]


@pytest.fixture
def environ(stack: Endpoints, names: TopicNames) -> dict[str, str]:
    return {
        **os.environ,
        "RILLFOLD_PROVIDER": "external",
        "RILLFOLD_BOOTSTRAP_SERVERS": stack.bootstrap_servers,
        "RILLFOLD_TOPIC_PREFIX": names.prefix,
    }


@pytest.fixture
async def kafka(stack: Endpoints, names: TopicNames) -> AsyncIterator[KafkaLog]:
    async with KafkaLog(stack.bootstrap_servers) as log:
        await log.create(wanted(names, [BY_NAME["company-data"], BY_NAME["adapter-request"]]))
        yield log


def produce(
    environ: dict[str, str], cwd: Path, *arguments: str, stdin: bytes = b""
) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run([*RILLFOLD, *arguments], env=environ, cwd=cwd, input=stdin, capture_output=True, timeout=60)


def begun(environ: dict[str, str], cwd: Path, *arguments: str) -> subprocess.Popen[bytes]:
    pipe = subprocess.PIPE
    return subprocess.Popen([*RILLFOLD, *arguments], env=environ, cwd=cwd, stdin=pipe, stdout=pipe, stderr=pipe)


async def holds(log: KafkaLog, topic: str, count: int) -> None:
    """Returns once the topic has so many records."""
    while sum((await log.ends(topic)).values()) < count:  # noqa: ASYNC110  the log tells nobody that it grew
        await asyncio.sleep(0.05)


async def stored(log: KafkaLog, topic: str) -> list[Event]:
    events: list[Event] = []
    for partition in await log.ends(topic):
        async for batch in log.read(topic, partition, 0):
            for record in batch:
                event = decode(record.value, Origin(topic, partition, record.offset), record.timestamp)
                assert isinstance(event, Event)
                events.append(event)
    return events


async def test_outputs_of_an_agent_are_sent_and_an_entry_that_is_none_is_named(kafka, names, environ, tmp_path) -> None:
    (tmp_path / "data").mkdir()
    entries = [{"prompt": "Hi", "output": "Hello"}, {"prompt": "Hi"}, {"prompt": "Bye", "response": "Farewell"}]
    (tmp_path / "data" / "sales_outputs.json").write_text(json.dumps(entries, indent=1))
    sent = produce(environ, tmp_path, "company-data", "data/sales_outputs.json", "--company", "acme")
    assert sent.returncode == 1 and b"2 sent" in sent.stdout and b"1 rejected" in sent.stdout
    (rejected,) = (tmp_path / "data" / "sales_outputs.json.rejects.jsonl").read_text().splitlines()
    assert {"line": 6, "entry": 1, "reason": "no_output"}.items() <= json.loads(rejected).items()
    events = await stored(kafka, names.wire("company-data"))
    assert sorted((event.agent, event.prompt, event.output) for event in events) == [
        ("sales", "Bye", "Farewell"),
        ("sales", "Hi", "Hello"),
    ]


async def test_good_rows_are_sent_and_bad_ones_named(kafka, names, environ, tmp_path: Path) -> None:
    (tmp_path / "rows.jsonl").write_text(
        '{"company":"acme","type":"text.ingested","text":"one"}\n'
        "\n"
        "not json\n"
        '{"company":"acme","type":"adapter.requested","adapter":"acme/x"}\n'
        '{"type":"text.ingested","text":"two"}'
    )
    done = produce(environ, tmp_path, "company-data", "rows.jsonl", "--company", "globex", "--json")
    assert done.returncode == 1, done.stderr
    told = json.loads(done.stdout)
    assert (told["rows"], told["sent"], told["rejected"]) == (4, 2, 2)
    rejects = [json.loads(line) for line in (tmp_path / told["rejects_file"]).read_text().splitlines()]
    assert [(reject["line"], reject["reason"]) for reject in rejects] == [(3, "invalid_json"), (4, "wrong_topic")]
    assert rejects[0]["row"] == "not json"
    assert told["first_reject"] == f"line 3: invalid_json: {rejects[0]['detail']}"
    (tmp_path / "rows.jsonl").write_text("\n")
    again = produce(environ, tmp_path, "company-data", "rows.jsonl", "--json")
    assert (again.returncode, json.loads(again.stdout)["rejected"]) == (0, 0)
    assert b"rows.jsonl.rejects.jsonl is of an earlier send" in again.stderr
    events = await stored(kafka, names.wire("company-data"))
    assert sorted((event.company, event.text) for event in events) == [("acme", "one"), ("globex", "two")]


async def test_csv_with_a_header_and_a_topic_of_one_event(kafka, names, environ, tmp_path: Path) -> None:
    (tmp_path / "wishes.csv").write_bytes(
        b'\xef\xbb\xbfcompany,adapter,adapter_version,requester\r\nacme,acme/a,3,"me,\r\nand you"\r\nacme,acme/b,,\r\n'
    )
    done = produce(environ, tmp_path, "adapter-request", "wishes.csv")
    assert (done.returncode, done.stderr) == (0, b"")
    events = await stored(kafka, names.wire("adapter-request"))
    assert [(e.adapter, e.adapter_version, e.requester) for e in events] == [
        ("acme/a", 3, "me,\r\nand you"),
        ("acme/b", None, ""),
    ]
    assert not (tmp_path / "wishes.csv.rejects.jsonl").exists()


async def test_a_table_without_columns_is_named_and_an_empty_one_said(kafka, names, environ, tmp_path: Path) -> None:
    (tmp_path / "rows.csv").write_text("kind;entity\norder;o-1\n")
    told = await asyncio.to_thread(produce, environ, tmp_path, "company-data", "rows.csv", "--company", "acme")
    assert told.returncode == 1 and b"'kind;entity' is one column, with ';' in it" in told.stdout
    (tmp_path / "rows.csv").write_text('order,o-1,"{}"\norder,o-2,"{}"\n')
    line = ("company-data", "rows.csv", "--company", "acme", "--type", "record.ingested")
    told = await asyncio.to_thread(produce, environ, tmp_path, *line)
    assert told.returncode == 1 and b"'order', 'o-1', '{}': no field of record.ingested." in told.stdout
    assert sum((await kafka.ends(names.wire("company-data"))).values()) == 0
    (tmp_path / "rows.csv").write_text("kind,entity\n")
    told = await asyncio.to_thread(produce, environ, tmp_path, "company-data", "rows.csv", "--company", "acme")
    assert told.returncode == 0 and b"it holds no row" in told.stdout


async def test_two_companies_that_send_one_file_share_no_id(kafka, names, environ, tmp_path: Path) -> None:
    (tmp_path / "r.jsonl").write_text('{"text":"same"}\n' * 3)
    for company in ("acme", "globex"):
        line = ("company-data", "r.jsonl", "--type", "text.ingested", "--company", company)
        assert produce(environ, tmp_path, *line).returncode == 0
    events = await stored(kafka, names.wire("company-data"))
    assert len({event.id for event in events}) == len(events) == 6


async def test_a_repeat_of_a_file_is_known_by_its_ids(kafka, names, environ, tmp_path: Path) -> None:
    (tmp_path / "r.jsonl").write_text('{"company":"acme","text":"same"}\n' * 3)
    for _ in range(2):
        assert produce(environ, tmp_path, "company-data", "r.jsonl", "--type", "text.ingested").returncode == 0
    ids = [event.id for event in await stored(kafka, names.wire("company-data"))]
    assert (len(ids), len(set(ids))) == (6, 3)


async def test_a_big_file_arrives_whole_and_in_order(kafka, names, environ, tmp_path: Path) -> None:
    count = 20_000
    with (tmp_path / "big.jsonl").open("w") as file:
        for n in range(count):
            file.write(f'{{"company":"acme","type":"text.ingested","entity":"e{n % 7}","text":"{n}"}}\n')
    done = produce(environ, tmp_path, "company-data", "big.jsonl", "--json")
    assert json.loads(done.stdout)["sent"] == count
    events = await stored(kafka, names.wire("company-data"))
    for entity in range(7):
        assert [int(e.text) for e in events if e.entity == f"e{entity}"] == list(range(entity, count, 7))


@pytest.mark.parametrize("there", ["rows.jsonl", "link", "nowhere/rejects", "rows.jsonl/rejects", "."])
async def test_rejects_that_cannot_be_kept_stop_it_before_a_row_is_sent(kafka, names, environ, tmp_path, there) -> None:
    rows = b'{"company":"acme","type":"text.ingested","text":"one"}\nnot json\n'
    (tmp_path / "rows.jsonl").write_bytes(rows)
    (tmp_path / "link").symlink_to("rows.jsonl")
    run = produce(environ, tmp_path, "company-data", "rows.jsonl", "--rejects", there)
    assert run.returncode in (1, 2)
    assert b"Traceback" not in run.stderr and (b"--rejects" in run.stderr)
    assert (tmp_path / "rows.jsonl").read_bytes() == rows
    assert not await stored(kafka, names.wire("company-data"))


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
async def test_a_signal_keeps_what_was_read_and_says_how_much(kafka, names, environ, tmp_path: Path, number) -> None:
    with begun(environ, tmp_path, "company-data", "--json") as child:
        child.stdin.write(b'{"company":"acme","type":"text.ingested","text":"live"}\n' * 2)
        child.stdin.write(b'{"company":"acme","type":"text.ing')  # as a file's row where it is cut
        child.stdin.flush()
        await holds(kafka, names.wire("company-data"), 2)
        child.send_signal(number)
        child.wait(30)  # before its input ends, which would end the row as well
        out, err = child.communicate(timeout=30)
    assert (child.returncode, err) == (128 + number, b"")
    told = json.loads(out)
    assert (told["sent"], told["stopped"], told["rejected"]) == (2, f"{number.name} after 2 rows", 0)


def test_a_reader_that_left_is_told_on_the_other_stream(kafka, environ, tmp_path: Path) -> None:
    with begun(environ, tmp_path, "company-data") as child:
        child.stdout.close()
        child.stdin.write(b'{"company":"acme","type":"text.ingested","text":"x"}\n')
        child.stdin.close()
        said = child.stderr.read().decode()
    assert child.returncode == 0
    assert said.startswith("1 sent to ")


@pytest.mark.parametrize("given", [os.devnull, "rows.jsonl"])
def test_standard_input_that_cannot_be_listened_to_is_read_plainly(kafka, environ, tmp_path: Path, given) -> None:
    """The event loop refuses to listen to either, and says so to nobody: a reader would wait for ever."""
    (tmp_path / "rows.jsonl").write_bytes(b'{"company":"acme","type":"text.ingested","text":"x"}\n')
    line = [*RILLFOLD, "company-data"]
    with (tmp_path / given).open("rb") as stdin:
        run = subprocess.run(line, env=environ, cwd=tmp_path, stdin=stdin, capture_output=True, timeout=60)
    assert (run.returncode, run.stderr) == (0, b"")
    assert run.stdout.startswith(b"0 sent to " if given == os.devnull else b"1 sent to ")


def test_standard_input_that_can_only_be_written_is_named(kafka, environ, tmp_path: Path) -> None:
    with (tmp_path / "out").open("wb") as stdin:
        line = [*RILLFOLD, "company-data"]
        run = subprocess.run(line, env=environ, cwd=tmp_path, stdin=stdin, capture_output=True, timeout=60)
    assert (run.returncode, run.stderr) == (1, b"")
    assert b"stopped early: <stdin> cannot be read on (Bad file descriptor)" in run.stdout


def test_no_broker_is_one_line_with_the_remedy(tmp_path: Path) -> None:
    environ = {**os.environ, "RILLFOLD_PROVIDER": "external", "RILLFOLD_BOOTSTRAP_SERVERS": "127.0.0.1:1"}
    done = produce(environ, tmp_path, "company-data", stdin=b'{"company":"a","type":"text.ingested","text":"x"}\n')
    assert done.returncode == 1
    assert b"127.0.0.1:1 does not answer" in done.stdout
    assert b"Traceback" not in done.stderr


def test_an_unknown_topic_is_named_with_those_that_exist(environ, tmp_path: Path) -> None:
    done = produce(environ, tmp_path, "company-date")
    assert done.returncode == 1
    assert b"No topic 'company-date'. Is 'company-data' meant? Take one of company-data" in done.stderr


LOADED = """
import runpy, sys
sys.argv = ["rillfold", *sys.argv[1:]]
try:
    runpy.run_module("rillfold", run_name="__main__")
finally:
    heavy = {"aiokafka", "torch", "faust", "transformers", "fastapi", "psycopg"}
    print(*sorted(heavy & set(sys.modules)), file=sys.stderr)
"""


@pytest.mark.parametrize(("arguments", "loaded"), [(["--help"], []), (["company-data"], ["aiokafka"])])
def test_producing_loads_only_what_it_needs(kafka, environ, tmp_path: Path, arguments, loaded) -> None:
    row = b'{"company":"acme","type":"text.ingested","text":"x"}\n'
    done = subprocess.run(
        [sys.executable, "-c", LOADED, "produce", *arguments],
        env=environ,
        cwd=tmp_path,
        input=row,
        capture_output=True,
        timeout=60,
    )
    assert (done.returncode, done.stderr.decode().split()) == (0, loaded)
