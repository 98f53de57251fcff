"""Records in Confluent framing: the registry's ids become our schemas; a registry that is down is never poison."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from threading import Barrier

import pytest

from schemas.codec.catalog import catalog
from schemas.codec.codec import decode, encode
from schemas.envelope import Event, Kind, Origin
from schemas.errors import Retry, Stop
from schemas.jobs import JobCompleted, JobRequested
from schemas.rejected import Rejected
from schemas.topics import TopicNames
from streams.errors import RegistryDown
from streams.log.kafka.registry import ASKED, SIDE_BY_SIDE, UNKNOWN_FOR, Registry
from tests.support.registry import FAULTS, LocalRegistry, local_registry

ORIGIN = Origin("automation-job", 0, 0)
EVENT = JobCompleted(id="1", company="acme_corp", time=1, correlation="1", job="j", answer="42", steps=3)


@pytest.fixture
def server() -> Iterator[LocalRegistry]:
    with local_registry() as server:
        yield server


def framed(number: int, event: Event = EVENT) -> bytes:
    return b"\x00" + number.to_bytes(4, "big") + encode(event)[10:]


def test_an_id_is_resolved_once_and_its_record_decoded(server: LocalRegistry) -> None:
    number = server.add(json.dumps(catalog().by_class[JobCompleted].source))
    registry = Registry(server.url)
    for _ in range(3):
        ids = registry.resolve([framed(number), None, b"{}"])
        assert decode(framed(number), ORIGIN, 0, ids=ids) == EVENT
    assert server.asked == [f"schemas/ids/{number}"]


def test_docs_and_attributes_that_a_client_adds_make_no_difference(server: LocalRegistry) -> None:
    schema = json.loads(json.dumps(catalog().by_class[JobCompleted].source))
    schema["doc"] = "generated"
    schema["fields"][0]["type"] = {"type": "string", "avro.java.string": "String"}
    number = server.add(json.dumps(schema))
    assert decode(framed(number), ORIGIN, 0, ids=Registry(server.url).resolve([framed(number)])) == EVENT


def test_an_old_version_is_lifted_by_its_id(server: LocalRegistry) -> None:
    entry = catalog().by_kind[Kind("agent_output.ingested", 1)]
    path = Path(__file__).parents[1] / "upgrade" / "wire" / f"{entry.kind}.json"
    body = bytes.fromhex(json.loads(path.read_text())[0]["value"])[10:]
    number = server.add(json.dumps(entry.source))
    value = b"\x00" + number.to_bytes(4, "big") + body
    event = decode(value, ORIGIN, 0, ids=Registry(server.url).resolve([value]))
    assert isinstance(event, Event) and event.version == 2


@pytest.mark.parametrize("fault", [fault for fault in FAULTS if fault != "401"])
def test_a_registry_in_trouble_means_retry_and_then_the_record_is_fine(server: LocalRegistry, fault: str) -> None:
    number = server.add(json.dumps(catalog().by_class[JobCompleted].source))
    registry = Registry(server.url)
    server.fault = fault
    with pytest.raises(RegistryDown, match="RILLFOLD_SCHEMA_REGISTRY") as caught:
        registry.resolve([framed(number)])
    assert isinstance(caught.value, Retry)
    server.fault = None
    assert decode(framed(number), ORIGIN, 0, ids=registry.resolve([framed(number)])) == EVENT


def test_a_registry_that_is_gone_means_retry_but_known_ids_go_on() -> None:
    with local_registry() as server:
        number = server.add(json.dumps(catalog().by_class[JobCompleted].source))
        registry = Registry(server.url)
        registry.resolve([framed(number)])
    assert decode(framed(number), ORIGIN, 0, ids=registry.resolve([framed(number)])) == EVENT
    with pytest.raises(Retry):
        registry.resolve([framed(number + 1)])


def test_wrong_credentials_stop(server: LocalRegistry) -> None:
    server.fault = "401"
    with pytest.raises(Stop, match="credentials"):
        Registry(server.url).resolve([framed(1)])


def test_an_id_that_no_registry_can_have_is_nobodys_and_not_asked_for() -> None:
    """Nobody answers there: to ask would be to wait."""
    with Registry("http://127.0.0.1:9", timeout=0.5) as registry:
        assert (1 << 32) - 1 not in registry.resolve([b"\x00\xff\xff\xff\xff x", b"\x00\x80\x00\x00\x00 x"])
        with pytest.raises(RegistryDown):
            registry.resolve([b"\x00\x7f\xff\xff\xff x"])


def test_an_id_that_the_registry_does_not_know_is_poison_and_asked_again_later(server: LocalRegistry) -> None:
    now = 0.0
    registry = Registry(server.url, clock=lambda: now)
    for _ in range(3):
        rejected = decode(framed(77), ORIGIN, 0, ids=registry.resolve([framed(77)]))
        assert rejected.reason == "unknown_schema" and "77" in rejected.detail
    assert server.asked == ["schemas/ids/77"]
    now = UNKNOWN_FOR
    registry.resolve([framed(77)])
    assert len(server.asked) == 2


@pytest.mark.parametrize("lists", [True, False], ids=["with a list", "with none"])
def test_a_flood_of_made_up_ids_costs_a_batch_few_questions_and_hides_no_new_schema(
    server: LocalRegistry, lists: bool
) -> None:
    """Registries count upwards: the lowest are asked for first, and all beyond are nobody's for this batch."""
    server.lists = lists
    for number in range(20):
        server.add(f'{{"type":"record","name":"Alien{number}","fields":[]}}')
    now, ours = 0.0, 0
    registry = Registry(server.url, clock=lambda: now)
    for round_ in range(1, 6):
        now += UNKNOWN_FOR
        if round_ == 4:
            ours = server.add(json.dumps(catalog().by_class[JobCompleted].source))
        before = len(server.asked)
        ids = registry.resolve(framed(number) for number in (1 << 30, *range(1_000 * round_, 0, -1)))
        there = 21 if round_ == 1 else 1 + (round_ == 4)
        assert 0 < len(server.asked) - before <= ASKED + there + SIDE_BY_SIDE + 2 * lists
        assert (ours in ids) == (round_ >= 4)
    assert decode(framed(ours), ORIGIN, 0, ids=ids) == EVENT
    refused = decode(framed(1 << 30), ORIGIN, 0, ids=ids)
    assert isinstance(refused, Rejected) and refused.reason == "unknown_schema"


def test_the_ids_of_a_batch_are_asked_for_side_by_side(server: LocalRegistry) -> None:
    """None is answered before all have come."""
    server.together = Barrier(SIDE_BY_SIDE)
    Registry(server.url).resolve(framed(number) for number in range(1, 2 * SIDE_BY_SIDE + 1))
    assert len(server.asked) == 2 * SIDE_BY_SIDE


def test_known_ids_cost_nothing_in_a_flood_and_foreign_schemas_are_asked_for_once(server: LocalRegistry) -> None:
    ours = server.add(json.dumps(catalog().by_class[JobCompleted].source))
    alien = server.add('{"type":"record","name":"Alien","fields":[]}')
    now = 0.0
    registry = Registry(server.url, clock=lambda: now)
    for later in (0.0, UNKNOWN_FOR, 100 * UNKNOWN_FOR):
        now = later
        assert alien not in registry.resolve([framed(ours), framed(alien)])
    assert sorted(server.asked) == [f"schemas/ids/{ours}", f"schemas/ids/{alien}"]


def test_a_flood_at_a_registry_that_is_down_waits_and_asks_no_more_than_once(server: LocalRegistry) -> None:
    server.fault = "503"
    registry = Registry(server.url)
    with pytest.raises(RegistryDown):
        registry.resolve([framed(number) for number in range(1, 1_000)])
    assert len(server.asked) <= SIDE_BY_SIDE
    server.fault = None
    number = server.add(json.dumps(catalog().by_class[JobCompleted].source))
    assert number in registry.resolve([framed(number) for number in range(1, 1_000)])


@pytest.mark.parametrize("text", ['{"type":"record","name":"Alien","fields":[]}', '"nonsense', '{"type":"x.Missing"}'])
def test_a_schema_that_is_not_ours_is_poison(server: LocalRegistry, text: str) -> None:
    number = server.add(text)
    assert decode(framed(number), ORIGIN, 0, ids=Registry(server.url).resolve([framed(number)])).reason == (
        "unknown_schema"
    )


def test_our_schemas_are_registered_per_topic_and_record_oldest_first(server: LocalRegistry) -> None:
    registry = Registry(server.url)
    subjects = registry.register(TopicNames("acme-", {"automation-job": "company_automation_jobs"}))
    assert "company_automation_jobs-rillfold.JobCompleted" in subjects
    assert len(server.subjects["acme-company-data-rillfold.AgentOutputIngested"]) == 2
    number = subjects["company_automation_jobs-rillfold.JobCompleted"]
    assert decode(framed(number), ORIGIN, 0, ids=registry.ids) == EVENT
    assert registry.register(TopicNames("acme-", {"automation-job": "company_automation_jobs"})) == subjects


def test_a_subject_that_cannot_take_our_schema_stops(server: LocalRegistry) -> None:
    fields = [{"name": "n", "type": "int"}]
    alien = {"type": "record", "name": "JobCompleted", "namespace": "rillfold", "fields": fields}
    server.subjects["automation-job-rillfold.JobCompleted"] = [server.add(json.dumps(alien))]
    with pytest.raises(Stop, match=r"automation-job-rillfold\.JobCompleted"):
        Registry(server.url).register(TopicNames())


@pytest.mark.parametrize("pages", [True, False], ids=["in pages", "in one piece"])
def test_made_up_ids_in_a_registrys_gaps_hide_none_of_ours(
    server: LocalRegistry, pages: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Some begin at 100,001, and what was deleted for good leaves a gap in any."""
    monkeypatch.setattr("streams.log.kafka.registry.PAGE", 2)
    server.pages = pages
    ours, old = 100_005, 7
    for number in (1, 2, 100_001, 100_003):
        server.schemas[number] = f'{{"type":"record","name":"Alien{number}","fields":[]}}'
    server.schemas[ours] = json.dumps(catalog().by_class[JobCompleted].source)
    server.schemas[old] = json.dumps(catalog().by_class[JobRequested].source)
    values = [*(framed(n) for n in range(1_000, 1_000 + 2 * ASKED)), *(framed(n) for n in range(200_000, 205_000))]
    registry = Registry(server.url, clock=lambda: 0.0)
    for _ in range(2):
        assert {ours, old} <= set(registry.resolve([*values, framed(ours), framed(old)]))
    assert server.asked.count("schemas") == (8 if pages else 4)
    one_by_one = [asked for asked in server.asked if asked != "schemas"]
    assert len(one_by_one) <= 2 * (ASKED + SIDE_BY_SIDE) and all(int(each[12:]) > ours for each in one_by_one)


def test_a_list_stands_ten_times_as_long_as_it_took(server: LocalRegistry) -> None:
    """A registry of thousands is not read again for each batch of a flood; what is new stands above it."""
    now, pages = 0.0, 0

    def clock() -> float:
        nonlocal now, pages
        now += 0.5 * (server.asked.count("schemas") - pages)
        pages = server.asked.count("schemas")
        return now

    server.add('{"type":"record","name":"Alien","fields":[]}')
    registry = Registry(server.url, clock=clock)
    flood = [framed(n) for n in range(1, 5_000)]
    registry.resolve(flood)
    ours = server.add(json.dumps(catalog().by_class[JobCompleted].source))
    now += 5.0
    assert ours in registry.resolve(flood) and pages == 2
    now += 6.0
    registry.resolve(flood)
    clock()
    assert pages == 4


def test_a_list_that_does_not_come_means_retry(server: LocalRegistry) -> None:
    flood = [framed(n) for n in range(1, 5_000)]
    with Registry(server.url) as registry:
        server.fault = "500"
        with pytest.raises(RegistryDown):
            registry.resolve(flood)
        server.fault = "proxy 404"
        with pytest.raises(RegistryDown):
            registry.resolve(flood)


@pytest.mark.parametrize("lists", [True, False], ids=["with a list", "with none"])
def test_ids_of_others_schemas_hide_none_of_ours(server: LocalRegistry, lists: bool) -> None:
    """A registry that many use has thousands; somebody may send a record of each."""
    server.lists = lists
    for n in range(3 * ASKED):
        server.add(f'{{"type":"record","name":"Alien{n}","fields":[]}}')
    ours = server.add(json.dumps(catalog().by_class[JobCompleted].source))
    registry = Registry(server.url)
    good = framed(ours)
    values = [*(framed(n) for n in range(1, 3 * ASKED + 1)), good, *(framed(ours + n) for n in range(1, 5_000))]
    assert decode(good, ORIGIN, 0, ids=registry.resolve(values)) == EVENT
    assert len(server.asked) <= 4 * ASKED + 2 + SIDE_BY_SIDE
    before = len(server.asked)
    registry.resolve(values[: 3 * ASKED])
    assert len(server.asked) == before, "what an id stands for never changes"
