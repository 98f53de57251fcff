"""`rillfold dlq`: what was refused is listed, shown to the byte, and sent once more, where and as it was."""

from __future__ import annotations

import json

from projections.companies import COMPANIES
from rillfold.testing.driver import Driver
from schemas.topics import TopicNames
from streams.log.kafka.log import KafkaLog
from streams.log.port import Position, Record

from .conftest import Command

POISON = {
    b"acme": b'{"type": "no.such", "company": "acme", "text": "caf\xc3\xa9"}',
    b"globex": b"\xff\x00 no event\x1b[2J",
}


async def refused(kafka: KafkaLog, names: TopicNames) -> dict[bytes, Position]:
    async with Driver(kafka, [COMPANIES], names=names) as driver:
        await driver.send({"type": "company.registered", "company": "acme", "name": "Acme"})
        places = {key: await driver.send_bytes("company-data", value, key) for key, value in POISON.items()}
        await driver.settle()
    return places


def path(place: Position) -> str:
    return f"{place.topic}/{place.partition}/{place.offset}"


async def test_what_was_refused_is_shown_to_the_byte(kafka: KafkaLog, names: TopicNames, rillfold: Command) -> None:
    places = await refused(kafka, names)
    listed = rillfold("dlq", "list", "--json")
    assert listed.returncode == 0, listed.stderr
    facts = {fact["company"]: fact for fact in json.loads(listed.stdout)}
    assert {(f["topic"], f["partition"], f["offset"]) for f in facts.values()} == {tuple(p) for p in places.values()}
    assert facts["acme"]["reason"] == "unknown_event"

    acme = rillfold("dlq", "show", path(places[b"acme"]))
    assert acme.returncode == 0, acme.stderr
    shown = dict(line.split(maxsplit=1) for line in acme.stdout.splitlines())
    assert shown["value"] == repr(POISON[b"acme"])
    assert (shown["key"], shown["reason"], shown["headers"]) == ("b'acme'", "unknown_event", "[]")
    globex = rillfold("dlq", "show", path(places[b"globex"]))
    assert repr(POISON[b"globex"]) in globex.stdout and "\x1b" not in globex.stdout
    assert rillfold("dlq", "show", path(places[b"acme"]), "--raw").stdout.encode() == POISON[b"acme"]

    elsewhere = f"{places[b'acme'].topic}/{places[b'acme'].partition}/4711"
    absent = rillfold("dlq", "show", elsewhere)
    assert absent.returncode == 1
    assert f"nothing from {elsewhere} was refused: `rillfold dlq list` names what was." in absent.stderr


async def test_what_was_refused_is_sent_once_more_and_only_once(
    kafka: KafkaLog, names: TopicNames, rillfold: Command
) -> None:
    places = await refused(kafka, names)
    place, before = places[b"acme"], len(await records(kafka, names))

    nobody = rillfold("dlq", "redrive", "--reason", "unknown_event")
    assert nobody.returncode == 1 and nobody.stderr.endswith("nobody was there to be asked. Say --yes.\n"), nobody
    wrong = rillfold("dlq", "redrive", "--reason", "unknown_evnt", "--yes")
    assert wrong.returncode == 1 and "Is 'unknown_event' meant?" in wrong.stderr, wrong
    for filters in (("--reason", "too_large"), ("--company", "amce", "--yes")):
        assert rillfold("dlq", "redrive", *filters).stdout.startswith("Nothing that was refused fits"), filters
    assert len(await records(kafka, names)) == before

    done = rillfold("dlq", "redrive", "--company", "acme", "--yes", "--json")
    assert (done.returncode, json.loads(done.stdout)) == (0, {"found": 1, "sent": 1, "left_out": []}), done.stderr
    *_, again = [each for each in await records(kafka, names) if each.partition == place.partition]
    assert (again.key, again.value) == (b"acme", POISON[b"acme"])
    assert [name for name, _ in again.headers] == ["rillfold-redriven"]
    assert len(await records(kafka, names)) == before + 1

    # The letter stands, and what it holds was sent: only the other one goes out now.
    done = rillfold("dlq", "redrive", "--yes")
    assert done.stdout == "1 of 2 were sent again.\n"
    assert rillfold("dlq", "redrive", "--yes").stdout == "0 of 2 were sent again.\n"
    assert len(await records(kafka, names)) == before + 2


async def records(kafka: KafkaLog, names: TopicNames) -> list[Record]:
    topic = names.wire("company-data")
    found = [batch for n in await kafka.ends(topic) async for batch in kafka.read(topic, n, 0)]
    return [record for batch in found for record in batch]
