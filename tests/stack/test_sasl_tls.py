"""A cluster with SASL, TLS and ACLs: each role works with its own rights alone, and what is refused is named."""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import ssl
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import psycopg
import pytest
from aiokafka.admin import AIOKafkaAdminClient
from click.testing import CliRunner

from projections.catalog import PROJECTIONS
from projections.companies import COMPANIES
from projections.datasets import DATASETS
from rillfold.cli import rillfold
from rillfold.demo import data
from rillfold.embedded.ports import HOST, free_port
from rillfold.embedded.state import Endpoints
from schemas.adapters import AdapterReady
from schemas.codec.codec import decode
from schemas.envelope import Event
from schemas.errors import RillfoldError
from schemas.inference import InferenceCompleted
from schemas.rejected import RecordRejected
from schemas.topics import TOPIC_OF, TopicNames
from streams.errors import Unreachable
from streams.history.refold import held
from streams.log.kafka.access import KafkaAccess, Login
from streams.log.kafka.log import KafkaLog
from streams.log.kafka.refused import BrokerNotTrusted, LoginRefused, NotAllowed, NoTls, reach
from streams.log.outgoing import to_outgoing
from streams.log.port import Outgoing, Reached, TopicSpec
from streams.owner.fence import FencedChangelogs
from streams.owner.rivals import group_of
from streams.state.changelog import topic_of
from streams.state.prepare import prepare
from tests.serve.test_inference import request
from tests.support.certificates import Authority
from tests.support.folding import FOLDED, Agree, agree, company_data
from tests.support.guarded import (
    IN_CLEAR,
    OPERATOR,
    PREFIX,
    GuardedBroker,
    Rights,
    grant,
    guarded_broker,
    install_kafka_acls,
    password_of,
    rights_of,
)
from tests.support.training import conversations, tiny_base
from tests.support.worker import WorkerProcess

__all__ = ["agree", "tiny_base"]
ROOT = Path(__file__).parents[2]
ROLES = (
    "admin",
    "producer",
    "fold",
    "sink",
    "bridge",
    "serve",
    "react",
    "train",
    "mlflow",
    "api",
    "promote",
    "reader",
    "redrive",
)
QUICK = ("--set", "rank=2", "--set", "steps=2", "--set", "batch=2", "--set", "evaluation_rows=2")
HALF: dict[str, tuple[Callable[[Rights], Rights], str]] = {
    "fold-without-group": (
        lambda right: right if "Describe" in right.operations else right.without("group"),
        "Read group north-rillfold-companies.",
    ),
    "fold-without-source": (lambda right: right.instead("Read", "Describe"), "Read topic north-company-data."),
}
"""Roles that lack one right, and what is said of it."""
WAIT = 120.0
ABSENT = TopicSpec(f"{PREFIX}rillfold-none-v9-changelog", 1)
Ask = Callable[[KafkaLog], Awaitable[object]]


@pytest.fixture(scope="module")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[GuardedBroker]:
    """With a user for each role, who has its rights and no others."""
    folder = tmp_path_factory.mktemp("guarded")
    with guarded_broker(folder, [*ROLES, *HALF, "fold-of-some", "nobody", "north-sink", "north-shop"]) as found:
        rights = [each for role in ROLES for each in rights_of(role, role, folder)]
        rights += rights_of("sink", "north-sink", folder)
        rights += rights_of("fold", "fold-of-some", folder, ONLY=" ".join(each.name for each in FOLDED))
        for user, (lacking, _) in HALF.items():
            rights += map(lacking, rights_of("fold", user, folder, ONLY=COMPANIES.name))
        grant(found, rights)
        told = run(found, "admin", "topics", "create")
        assert "10 created" in told, told
        yield found


def run(broker: GuardedBroker, user: str, *line: str, code: int = 0, **more: str) -> str:
    """`rillfold ...` as this user, in this process. What it says, with what went wrong."""
    done = CliRunner().invoke(rillfold, line, env=broker.environment(user, broker.folder / user, **more))
    told = f"{done.output}{done.exception or ''}"
    assert done.exit_code == code, told
    assert "hidden-word" not in told
    return told


@pytest.fixture
def names() -> TopicNames:
    return TopicNames(PREFIX)


@pytest.fixture
async def kafka(broker: GuardedBroker) -> AsyncIterator[KafkaLog]:
    """The test's own eyes, by the open door."""
    async with KafkaLog(broker.inside) as log:
        yield log


async def describe(log: KafkaLog) -> object:
    return await log.describe([f"{PREFIX}company-data"])


async def asked(access: KafkaAccess, ask: Ask = describe) -> object:
    async with KafkaLog(access) as log:
        return await ask(log)


@pytest.mark.parametrize("mechanism", ["SCRAM-SHA-256", "SCRAM-SHA-512"])
async def test_a_password_that_never_travels_lets_in(broker: GuardedBroker, mechanism: str) -> None:
    assert await asked(broker.access("reader", mechanism=mechanism))


async def test_other_doors_let_in_too(broker: GuardedBroker) -> None:
    """By PLAIN under TLS, by SCRAM without, and by a certificate."""
    await reach(broker.access(IN_CLEAR, mechanism="PLAIN"))
    await reach(KafkaAccess(broker.clear, broker.access("reader").login))
    own = ssl.create_default_context(cafile=broker.authority)
    own.load_cert_chain(broker.folder / "client.pem")
    await reach(KafkaAccess(broker.mutual, tls=own))


async def test_a_broker_that_wants_the_password_again_costs_nobody_an_error(broker: GuardedBroker) -> None:
    """It ends each connection that has stood for a second."""
    async with KafkaLog(KafkaAccess(broker.clear, broker.access("bridge").login)) as log, asyncio.timeout(WAIT):
        first: set[object] = set()
        while not first or first & (standing := _connections(log)):
            await append(log, "tool-result")
            assert await describe(log) and await log.ends(f"{PREFIX}tool-result")
            first = first or _connections(log)
        assert standing


def _connections(log: KafkaLog) -> set[object]:
    """Of the client that asks for topics."""
    return set(log._clients[AIOKafkaAdminClient]._client._conns.values())


def wrong(broker: GuardedBroker) -> dict[str, tuple[KafkaAccess, type[RillfoldError], str]]:
    good = broker.access("reader")
    return {
        "password": (broker.access("reader", "guessed"), LoginRefused, "RILLFOLD_KAFKA_PASSWORD_FILE"),
        "password by PLAIN": (broker.access(IN_CLEAR, "guessed", "PLAIN"), LoginRefused, f"of {IN_CLEAR} by PLAIN"),
        "mechanism": (
            KafkaAccess(broker.clear, Login("SCRAM-SHA-256", "reader", password_of("reader"))),
            LoginRefused,
            "RILLFOLD_KAFKA_MECHANISM",
        ),
        "authority": (replace(good, tls=ssl.create_default_context()), BrokerNotTrusted, "RILLFOLD_KAFKA_CA_FILE"),
        "name": (
            replace(good, servers=good.servers.replace(HOST, "localhost")),
            BrokerNotTrusted,
            "not valid for 'localhost'",
        ),
        "no certificate of ours": (KafkaAccess(broker.mutual, tls=good.tls), NoTls, "RILLFOLD_KAFKA_CERT_FILE"),
        "no login": (replace(good, login=None), Unreachable, "RILLFOLD_KAFKA_SECURITY=SSL"),
        "no TLS": (replace(good, tls=None), Unreachable, "RILLFOLD_KAFKA_SECURITY=SASL_PLAINTEXT"),
        "neither": (KafkaAccess(good.servers), Unreachable, "RILLFOLD_KAFKA_SECURITY=PLAINTEXT"),
        "an open door": (replace(good, servers=broker.inside), Unreachable, "RILLFOLD_KAFKA_SECURITY=SASL_SSL"),
    }


async def test_who_is_not_let_in_is_told_why_and_what_to_set(broker: GuardedBroker) -> None:
    for case, (access, kind, told) in wrong(broker).items():
        with pytest.raises(kind) as refused:
            await asked(access)
        assert told in str(refused.value), case
        assert "guessed" not in f"{refused.value} {refused.value.__cause__!r}", case


async def test_a_certificate_that_has_expired_is_named(broker: GuardedBroker, tmp_path: Path) -> None:
    authority, own = Authority("authority"), tmp_path / "expired.pem"
    own.write_bytes(authority.key_and_certificate(HOST, days=-1))
    shown = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    shown.load_cert_chain(own)
    server = await asyncio.start_server(lambda _reader, writer: writer.close(), HOST, 0, ssl=shown)
    async with server:
        where = "{}:{}".format(*server.sockets[0].getsockname())
        trusted = ssl.create_default_context(cadata=authority.certificate.decode())
        with pytest.raises(BrokerNotTrusted, match="certificate has expired"):
            await asked(KafkaAccess(where, broker.access("reader").login, trusted))


def test_commands_end_with_one_line(broker: GuardedBroker, tmp_path: Path) -> None:
    guessed = tmp_path / "guessed"
    guessed.write_text("guessed")
    told = run(broker, "reader", "topics", "list", code=1, KAFKA_PASSWORD_FILE=str(guessed))
    assert "refuses the login of reader by SCRAM-SHA-512" in told
    assert "company-data" in run(broker, "reader", "topics", "list")
    assert "as they should be" in run(broker, "admin", "topics", "check")
    told = run(broker, "nobody", "topics", "list", code=1)
    assert "Kafka lets User:nobody not Describe topic" in told
    exports = run(broker, "reader", "env")
    assert "RILLFOLD_KAFKA_SECURITY=SASL_SSL" in exports and "RILLFOLD_KAFKA_USER=reader" in exports


def test_the_doctor_logs_in_as_the_workers_do(broker: GuardedBroker, tmp_path: Path) -> None:
    assert f"Kafka answers at {broker.outside}, to reader by SASL_SSL" in run(broker, "reader", "doctor", "--json")
    told = run(broker, "reader", "doctor", "--json", code=1, KAFKA_MECHANISM="PLAIN")
    assert "refuses the login of reader by PLAIN" in told


async def read_all(log: KafkaLog) -> object:
    return [batch async for batch in log.read(f"{PREFIX}company-data", 0, 0)]


async def append(log: KafkaLog, topic: str) -> object:
    return await log.append([Outgoing(f"{PREFIX}{topic}", b"somebody", b"{}")])


async def join(log: KafkaLog, group: str = "rillfold-mine", topic: str = "company-data") -> object:
    """Polled until what it is owed is there: a member that was never given anything has seen no refusal."""
    async with log.subscribe(f"{PREFIX}{group}", [f"{PREFIX}{topic}"]) as member, asyncio.timeout(WAIT):
        while not (taken := await member.poll()):
            pass
        await member.commit({tp: records[-1].offset + 1 for tp, records in taken.items()})
        return taken


async def alone(log: KafkaLog) -> object:
    async with log.alone(f"{PREFIX}rillfold-redrive") as one:
        return await one.append([Outgoing(f"{PREFIX}tool-result", b"somebody", b"{}")])


REFUSED: dict[str, tuple[str, Ask, str]] = {
    "reads what it only writes": ("producer", read_all, "Read topic north-company-data."),
    "writes what workers say": (
        "producer",
        lambda log: append(log, "tool-result"),
        "Describe topic north-tool-result.",
    ),
    "writes, and may nowhere": ("sink", lambda log: append(log, "tool-call"), "Write topic north-tool-call."),
    "writes, and may elsewhere": ("bridge", lambda log: append(log, "tool-call"), "Write topic north-tool-call."),
    "makes a changelog": ("sink", lambda log: log.create([ABSENT]), f"Create topic {ABSENT.name}."),
    "joins a group": ("reader", join, "Read group north-rillfold-mine."),
    "asks a group how far it is": (
        "reader",
        lambda log: log.committed(f"{PREFIX}rillfold", f"{PREFIX}company-data"),
        "Read group north-rillfold.",
    ),
    "folds, and joins those that train": (
        "fold",
        lambda log: join(log, "rillfold-train"),
        "Read group north-rillfold-train.",
    ),
    "folds, and shuts out a redrive": ("fold", alone, "Write transactional-id north-rillfold-redrive."),
    "speaks for companies, and promotes": (
        "api",
        lambda log: append(log, "adapter-ready"),
        "Write topic north-adapter-ready.",
    ),
    "promotes, and says what a company wishes": (
        "promote",
        lambda log: append(log, "training-request"),
        "Write topic north-training-request.",
    ),
    "answers questions, and for tools": (
        "serve",
        lambda log: append(log, "tool-result"),
        "Write topic north-tool-result.",
    ),
    "trains, and answers questions": (
        "train",
        lambda log: append(log, "inference-result"),
        "Write topic north-inference-result.",
    ),
    "redrives": ("reader", alone, "Write transactional-id north-rillfold-redrive."),
    "is nobody": ("nobody", describe, "Describe topic north-company-data."),
}
"""Who tries what, and what is said."""


async def test_what_no_acl_allows_is_refused_by_name_and_not_tried_again(broker: GuardedBroker) -> None:
    await say(broker, 40, 4, b"no event")
    for case, (user, ask, told) in REFUSED.items():
        with pytest.raises(NotAllowed) as refused:
            await asked(broker.access(user), ask)
        assert str(refused.value).startswith(f"Kafka lets User:{user} not {told}"), f"{case}: {refused.value}"


@pytest.mark.parametrize(
    ("given", "group", "claimed"),
    [
        ({}, "rillfold", set(PROJECTIONS)),
        ({"OWN": "orders refunds"}, "rillfold", {*PROJECTIONS, "orders", "refunds"}),
        ({"ONLY": "files companies"}, "rillfold-companies-files", {"files", "companies"}),
    ],
)
def test_a_fold_joins_its_own_group_and_claims_what_it_folds(
    given: dict[str, str], group: str, claimed: set[str], tmp_path: Path
) -> None:
    rights = rights_of("fold", "x", tmp_path, **given)
    assert [right.things for right in rights if "Read" in right.operations and right.things[0][0] == "group"] == [
        [("group", f"{PREFIX}{group}")]
    ]
    assert group == group_of("rillfold", given.get("ONLY", "").split())
    claims = {name for right in rights for kind, name in right.things if kind == "transactional-id"}
    assert claims == {f"{PREFIX}rillfold-{name}-v" for name in claimed}


async def test_a_claim_that_no_acl_allows_is_refused_by_name(broker: GuardedBroker) -> None:
    """The bridge may write, elsewhere."""
    fence = FencedChangelogs("us", broker.access("bridge"))
    with pytest.raises(NotAllowed, match="Write transactional-id north-rillfold-none-v9-changelog-0"):
        await fence.claim({0: [ABSENT.name]})
    await fence.stop()


INBOXES = {
    "bridge": ("rillfold-tool-bridge", "tool-call", "tool-result"),
    "serve": ("rillfold-serve", "inference-request", "inference-result"),
    "train": ("rillfold-train", "training-request", "adapter-ready"),
}


async def test_the_api_may_ask_how_far_workers_are(broker: GuardedBroker) -> None:
    """And nothing else of a group: it joins none."""
    async with KafkaLog(broker.access("api")) as log:
        for group, asks, _ in INBOXES.values():
            assert isinstance(await log.committed(f"{PREFIX}{group}", f"{PREFIX}{asks}"), dict)
        with pytest.raises(NotAllowed, match="Read group"):
            await join(log, "rillfold-serve", "inference-request")


async def test_inboxes_are_read_and_answered_with_their_own_rights(broker: GuardedBroker) -> None:
    async with KafkaLog(broker.inside) as log:
        for _, asks, _ in INBOXES.values():
            await append(log, asks)
    for role, (group, asks, answers) in INBOXES.items():
        async with KafkaLog(broker.access(role)) as log:
            assert await join(log, group, asks)
            assert await append(log, answers)


async def test_a_reaction_says_what_it_emits_and_how_far_it_has_come_with_its_own_rights(broker: GuardedBroker) -> None:
    group, place = f"{PREFIX}rillfold-react-shop-note-v1", (f"{PREFIX}company-data", 0)
    async with KafkaLog(broker.access("react")) as log:
        async with log.alone(f"{group}-{place[0]}-0") as one:
            await one.append([Outgoing(place[0], b"somebody", b"{}")], Reached(group, {place: 1}))
        async with log.alone(f"{group}-{place[0]}-0"):
            assert (await log.committed(group, place[0]))[0] == 1
        assert await join(log, "rillfold-react-shop-other-v1")
        with pytest.raises(NotAllowed, match="transactional-id north-rillfold-redrive"):
            await alone(log)


async def test_runs_are_followed_with_rights_of_their_own(broker: GuardedBroker) -> None:
    group, topic = f"{PREFIX}rillfold-mlflow", f"{PREFIX}training-request"
    async with KafkaLog(broker.access("mlflow")) as log:
        async with log.alone(group) as one:
            await one.append([], Reached(group, {(topic, 0): 1}))
        async with log.alone(group):
            assert (await log.committed(group, topic))[0] == 1


def test_a_bridge_works_and_is_watched_with_its_own_rights(broker: GuardedBroker, tmp_path: Path) -> None:
    bridge = worker(broker, "bridge", "bridge", tmp_path)
    try:
        bridge.start().until_ready()
    finally:
        bridge.stop()
    assert bridge.code() == 0, bridge.log()


def worker(broker: GuardedBroker, role: str, name: str, folder: Path, user: str = "", **more: str) -> WorkerProcess:
    given = broker.environment(user or role, folder / name, SESSION_TIMEOUT="3", **more)
    return WorkerProcess(name, ("worker", role, "--name", name), given, folder / "logs")


async def say(broker: GuardedBroker, count: int, seed: int, poison: bytes) -> None:
    names = TopicNames(PREFIX)
    said = [to_outgoing(event, names) for event in company_data(count, seed)]
    said.insert(count // 2, Outgoing(names.wire("company-data"), b"company-1", poison))
    async with KafkaLog(broker.access("producer")) as log:
        await log.append(said)


async def test_each_role_does_its_work_with_its_own_rights_alone(
    broker: GuardedBroker, stack: Endpoints, tmp_path: Path, agree: Agree, started: list[WorkerProcess]
) -> None:
    """Produced, folded, killed, taken over, kept in Postgres, told, sent again and proven against the log."""
    assert stack.postgres_dsn is not None
    database = {"POSTGRES_DSN": stack.postgres_dsn, "POSTGRES_SCHEMA": f"guarded{time.time_ns()}"}
    first, second = (worker(broker, "fold", name, tmp_path, "fold-of-some") for name in ("first", "second"))
    sink = worker(broker, "sink", "sink", tmp_path, **database)
    given = broker.environment("api", tmp_path / "api", API_PORT=str(port := free_port()), **database)
    api = WorkerProcess("api", ("api",), given, tmp_path / "logs")
    started += [first, second, sink, api]
    only = [word for each in FOLDED for word in ("--only", each.name)]
    try:
        await say(broker, 300, 1, b"no event")
        async with KafkaLog(broker.access("fold")) as log:
            await prepare(log, list(PROJECTIONS.values()), TopicNames(PREFIX))  # of those too that are not folded here
        first.start(*only)
        await agree(timeout=WAIT)
        first.kill()
        await say(broker, 300, 2, b"no event either")
        second.start(*only)
        sink.start()
        api.start()
        rows = await agree(timeout=WAIT)
        assert rows > 100
        of_ours = "--topic", f"{PREFIX}company-data"
        told = await asyncio.to_thread(run, broker, "redrive", "dlq", "redrive", *of_ours, "--yes", "--json")
        done = json.loads(told)
        assert done["sent"] == done["found"] >= 2
        await agree(timeout=WAIT)
        for each in (COMPANIES.name, DATASETS.name):
            await asyncio.to_thread(run, broker, "reader", "projection", "digest", each, "--refold")
        await _kept(stack.postgres_dsn, database["POSTGRES_SCHEMA"], len(await _rows(broker)))
        await asyncio.to_thread(api.until_ready)
        key = (tmp_path / "api" / "api" / "admin.key").read_text().strip()
        async with httpx.AsyncClient(headers={"Authorization": f"Bearer {key}"}, trust_env=False, timeout=60) as http:
            answer = await http.get(f"http://{HOST}:{port}/projections/companies")
        assert answer.status_code == 200 and answer.json()["rows"], answer.text
    finally:
        for each in started:
            each.close()
    assert not any("hidden-word" in each.log() for each in started)


async def test_a_question_a_training_and_what_is_no_event_pass_with_their_own_rights(
    broker: GuardedBroker, tmp_path: Path, tiny_base: Path, started: list[WorkerProcess]
) -> None:
    model = {"BASE_MODEL": str(tiny_base), "CACHE_DIR": str(tmp_path / "cache"), "SERVE_PORT": str(free_port())}
    model |= {"SERVE_THREADS": "1", "TRAIN_THREADS": "1"}
    started += [worker(broker, role, role, tmp_path, **model) for role in ("serve", "train", "bridge")]
    names, question = TopicNames(PREFIX), request("What is the capital of France?")
    said = [to_outgoing(each, names) for each in (*conversations(data.ACME, 12, requests=3), question)]
    try:
        async with KafkaLog(broker.access("producer")) as log:
            await log.append([*said, Outgoing(names.wire("inference-request"), b"acme", b"no question")])
        async with KafkaLog(broker.inside) as log:
            await log.append([Outgoing(names.wire("tool-call"), b"acme", b"no call")])
            for each in started:
                each.start()
            line = "train", "--company", data.ACME.id, "--wait", "--json", *QUICK
            told = await asyncio.to_thread(run, broker, "api", *line, BASE_MODEL=str(tiny_base))
            assert json.loads(told.splitlines()[-1])["adapter"] == f"{data.ACME.id}/default", told
            async with asyncio.timeout(WAIT):
                assert await heard(log, AdapterReady, lambda event: event.company == data.ACME.id)
                assert await heard(log, InferenceCompleted, lambda event: event.request == question.id)
                for buried in (b"no question", b"no call"):
                    assert await heard(log, RecordRejected, lambda event, buried=buried: event.value == buried)
        assert all(each.alive for each in started)
    finally:
        for each in started:
            each.close()
    assert not any("hidden-word" in each.log() for each in started)


async def heard(log: KafkaLog, kind: type[Event], wanted: Callable[[Any], bool]) -> Event:
    """The first such event, once it is there."""
    topic = f"{PREFIX}{TOPIC_OF[kind].name}"
    while True:
        for partition in await log.ends(topic):
            async for records in log.read(topic, partition, 0):
                for event in (decode(each.value, each.origin, each.timestamp) for each in records):
                    if isinstance(event, kind) and wanted(event):
                        return event
        await asyncio.sleep(0.2)


async def _rows(broker: GuardedBroker) -> set[bytes]:
    async with KafkaLog(broker.inside) as log:
        found = await held(log, COMPANIES, topic_of(COMPANIES, PREFIX))
    return {key for part in found.values() for key in part.rows}


async def _kept(dsn: str, schema: str, count: int) -> None:
    async with asyncio.timeout(WAIT):
        while _count(dsn, schema) != count:  # noqa: ASYNC110 - Postgres tells nobody
            await asyncio.sleep(0.2)


def _count(dsn: str, schema: str) -> int:
    with psycopg.connect(dsn) as connection:
        try:
            found = connection.execute(f'SELECT count(*) FROM "{schema}".companies').fetchone()
        except (psycopg.errors.UndefinedTable, psycopg.errors.InvalidSchemaName):
            return -1
    assert found is not None
    return int(found[0])


@pytest.fixture
def started() -> list[WorkerProcess]:
    return []


async def test_a_fold_that_lacks_a_right_ends_and_names_it(broker: GuardedBroker, tmp_path: Path) -> None:
    """Each has something to fold, and something to refuse. At once: what takes long is that they start."""
    await say(broker, 20, 3, b"no event")
    folding = {user: worker(broker, "fold", user, tmp_path, user, TOPIC_PREFIX=PREFIX) for user in HALF}
    try:
        for each in folding.values():
            each.start("--only", COMPANIES.name)
        for user, each in folding.items():
            assert await asyncio.to_thread(each.ended, WAIT) not in (0, -signal.SIGKILL)
            assert f"Kafka lets User:{user} not {HALF[user][1]}" in each.log(), each.log()
    finally:
        for each in folding.values():
            each.close()


def shown(kind: str, word: str) -> str:
    """The block of the page for operators with this word in it."""
    page = (ROOT / "docs" / "operations.md").read_text()
    (found,) = (block for block in re.findall(rf"^```{kind}\n(.*?)^```$", page, re.M | re.S) if word in block)
    return str(found)


def test_the_page_for_operators_is_true_as_it_stands(broker: GuardedBroker, tmp_path: Path) -> None:
    """Its commands by Kafka's own tool, its files with this machine's places in them. The sink has its rights."""
    install_kafka_acls(tmp_path)
    here = {
        "kafka.example.com:9094": broker.outside,
        "/etc/rillfold/authority.pem": str(broker.authority),
        "/etc/rillfold/sink.password": str(tmp_path / "sink.password"),
        "=admin.properties": f"={tmp_path / 'admin.properties'}",
        'password="PASSWORD"': f'password="{password_of(OPERATOR)}"',
    }

    def with_places(text: str) -> str:
        for there, place in here.items():
            text = text.replace(there, place)
        return text

    (tmp_path / "admin.properties").write_text(with_places(shown("properties", "cluster-admin")))
    (tmp_path / "sink.password").write_text(f"{password_of('north-sink')}\n")
    (tmp_path / "sink.env").write_text(with_places(shown("sh", "RILLFOLD_KAFKA_USER=")))
    commands = with_places(shown("sh", "export BOOTSTRAP"))
    whole = f"set -e\n{commands}\nset -a; . {tmp_path / 'sink.env'}\n{sys.executable} -m rillfold topics list --json"
    environ = os.environ | {"PATH": f"{tmp_path}:{os.environ['PATH']}", "RILLFOLD_DATA_DIR": str(tmp_path)}
    done = subprocess.run(["sh", "-c", whole], cwd=ROOT, env=environ, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert f'"wire":"{PREFIX}company-data"' in done.stdout.replace(" ", "")
    assert "hidden-word" not in done.stdout + done.stderr
    assert asyncio.run(asked(broker.access("north-shop"), lambda log: append(log, "company-data")))
