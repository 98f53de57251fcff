"""`rillfold projection digest --refold` where a changelog does not say what the log does: exit 1, the row's name."""

from __future__ import annotations

import json

from aiokafka.admin import AIOKafkaAdminClient, NewPartitions

from projections.companies import COMPANIES, Company
from rillfold.embedded.state import Endpoints
from rillfold.testing.driver import Driver
from schemas.topics import TopicNames
from streams.history.refold import held
from streams.log.kafka.log import KafkaLog
from streams.log.port import Outgoing
from streams.state.changelog import RowCodec, topic_of

from .conftest import Command

REFOLD = ("projection", "digest", COMPANIES.name, "--refold")
ROWS = RowCodec(Company)


async def test_a_row_that_the_log_does_not_give_is_named(kafka: KafkaLog, names: TopicNames, rillfold: Command) -> None:
    changelog = topic_of(COMPANIES, names.prefix)
    async with Driver(kafka, [COMPANIES], names=names) as driver:
        for company in ("acme", "globex", "initech"):
            await driver.send({"type": "company.registered", "company": company, "name": company.title()})
        await driver.settle()

    proof = rillfold(*REFOLD, "--json")
    assert (proof.returncode, proof.stderr) == (0, "")
    (told,) = json.loads(proof.stdout)
    assert (told["rows"], told["served"]) == (3, told["refolded"])

    ((partition, true),) = [
        (n, part.rows["globex"])
        for n, part in (await held(kafka, COMPANIES, changelog)).items()
        if "globex" in part.rows
    ]
    flipped = ROWS.encode(Company(company="globex", name="Glubex"), names.wire("company-data"), partition, 0)
    invented = ROWS.encode(Company(company="hooli", name="Hooli"), names.wire("company-data"), partition, 0)
    changed = [(b"globex", flipped), (b"hooli", invented)]
    await kafka.append([Outgoing(changelog, key, value, partition=partition) for key, value in changed])
    await disagrees(rillfold, [f"companies/{partition} globex", f"companies/{partition} hooli"])

    right = ROWS.encode(true, names.wire("company-data"), partition, 0)
    gone = Outgoing(changelog, b"hooli", None, partition=partition)
    await kafka.append([Outgoing(changelog, b"globex", right, partition=partition), gone])
    assert rillfold(*REFOLD).returncode == 0

    await kafka.append([Outgoing(changelog, b"globex", None, partition=partition)])
    await disagrees(rillfold, [f"companies/{partition} globex"])


async def disagrees(rillfold: Command, rows: list[str]) -> None:
    proof = rillfold(*REFOLD, "--json")
    assert proof.returncode == 1
    (told,) = json.loads(proof.stdout)
    assert told["served"] != told["refolded"]
    said = proof.stderr.splitlines()
    assert said[:-1] == [f"Not the fold of the log: row {row}" for row in rows]
    assert "not the fold of the log: companies. Fold anew: its steps are in docs/operations.md" in said[-1]


async def test_a_source_that_has_grown_is_named(
    kafka: KafkaLog, names: TopicNames, rillfold: Command, stack: Endpoints
) -> None:
    """Workers at work hear of it up to half a minute later: what came until then is folded where its key stands now."""
    async with Driver(kafka, [COMPANIES], names=names) as driver:
        await driver.send({"type": "company.registered", "company": "acme", "name": "Acme"})
        await driver.settle()
    source, broker = names.wire("company-data"), AIOKafkaAdminClient(bootstrap_servers=stack.bootstrap_servers)
    await broker.start()
    try:
        await broker.create_partitions({source: NewPartitions(6)})
    finally:
        await broker.close()
    for command in (REFOLD, REFOLD[:-1]):
        proof = rillfold(*command)
        assert proof.returncode == 1 and "companies v1: NOT the fold of the log" in proof.stdout
        named, last = proof.stderr.splitlines()
        assert named == f"companies: {source} has 6 partitions, its rows were folded from 4"
        assert "Rows of keys that have moved are in halves. Copy the events" in last
