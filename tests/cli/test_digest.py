"""`rillfold projection digest --refold` where a changelog does not say what the log does: exit 1, the row's name."""

from __future__ import annotations

import json

from projections.companies import COMPANIES, Company
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
