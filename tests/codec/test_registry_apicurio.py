"""The registry port against a real registry, with records that Confluent's own serializer wrote."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest
from confluent_kafka.schema_registry import SchemaRegistryClient
from confluent_kafka.schema_registry.avro import AvroSerializer
from confluent_kafka.serialization import MessageField, SerializationContext

from rillfold.settings import from_env
from schemas.codec.catalog import catalog
from schemas.codec.codec import decode
from schemas.company import AgentOutputIngested
from schemas.envelope import Kind, Origin
from schemas.topics import TopicNames
from streams.errors import RegistryDown
from streams.log.kafka.registry import Registry
from tests.support.apicurio import NotFetched, apicurio, distribution

ORIGIN = Origin("company-data", 0, 0)
EVENT = AgentOutputIngested(
    id="1", company="acme_corp", time=1, correlation="1", agent="ceo", prompt="p", output="o", success=True, score=0.5
)


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory):
    try:
        distribution(from_env())
    except NotFetched as error:
        pytest.skip(str(error))
    with apicurio(from_env(), tmp_path_factory.mktemp("apicurio")) as url:
        yield url


def serialised(url: str, event: msgspec.Struct, kind: Kind) -> bytes:
    """As a client writes it that has our .avsc file and Confluent's library."""
    path = Path(__file__).parents[2] / "schemas" / "avro" / f"{kind}.avsc"
    fields = msgspec.to_builtins(event, builtin_types=(bytes,))
    with SchemaRegistryClient({"url": url}) as client:
        value = AvroSerializer(client, path.read_text())(fields, SerializationContext("foreign", MessageField.VALUE))
    assert value is not None
    return value


def test_what_confluents_serializer_wrote_is_decoded(url: str) -> None:
    value = serialised(url, EVENT, Kind("agent_output.ingested", 2))
    assert value[0] == 0
    with Registry(url) as registry:
        assert decode(value, ORIGIN, 0, ids=registry.resolve([value])) == EVENT


def test_every_stored_schema_registers_and_resolves(url: str) -> None:
    names = TopicNames("real-")
    with Registry(url) as registering, Registry(url) as reading:
        registered = registering.register(names)
        assert registered == registering.register(names)
        ids = reading.resolve([b"\x00" + number.to_bytes(4, "big") for number in registered.values()])
    assert {entry.kind for entry in ids.values()} == {entry.kind for entry in catalog().by_class.values()}


def test_an_id_that_a_real_registry_does_not_know_is_poison(url: str) -> None:
    value = b"\x00" + (999_999).to_bytes(4, "big")
    with Registry(url) as registry:
        assert decode(value, ORIGIN, 0, ids=registry.resolve([value])).reason == "unknown_schema"


def test_a_wrong_path_on_a_real_registry_is_a_retry(url: str) -> None:
    with Registry(url.replace("ccompat", "nothing")) as registry, pytest.raises(RegistryDown):
        registry.resolve([b"\x00" + (1).to_bytes(4, "big")])
