"""Settings by which nobody gets in are refused by name before anybody is asked, and the password is told nobody."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from rillfold.kafka_access import kafka_access
from rillfold.settings import Settings, from_env
from schemas.errors import Stop
from streams.log.kafka.access import KafkaAccess
from streams.owner.credentials import credentials_of
from tests.support.certificates import Authority

WORD = "never-to-be-told"


@pytest.fixture
def files(tmp_path: Path) -> Path:
    authority = Authority("authority")
    (tmp_path / "password").write_text(f"{WORD}\n")
    (tmp_path / "empty").write_text("\n")
    (tmp_path / "authority.pem").write_bytes(authority.certificate)
    (tmp_path / "own.pem").write_bytes(authority.key_and_certificate("127.0.0.1"))
    return tmp_path


def made(files: Path, provider: str = "external", **given: str) -> KafkaAccess:
    named = {f"RILLFOLD_KAFKA_{name}": value.replace("@", f"{files}/") for name, value in given.items()}
    return kafka_access(from_env(named | {"RILLFOLD_PROVIDER": provider}), "kafka:9094")


SASL = {"SECURITY": "SASL_SSL", "USER": "fold", "PASSWORD_FILE": "@password", "CA_FILE": "@authority.pem"}
REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "no such protocol": (SASL | {"SECURITY": "TLS"}, "RILLFOLD_KAFKA_SECURITY='TLS'"),
    "no such mechanism": (SASL | {"MECHANISM": "GSSAPI"}, "RILLFOLD_KAFKA_MECHANISM='GSSAPI'"),
    "no user": ({"SECURITY": "SASL_SSL"}, "RILLFOLD_KAFKA_USER is not set"),
    "no password": ({"SECURITY": "SASL_SSL", "USER": "fold"}, "RILLFOLD_KAFKA_PASSWORD_FILE is not set"),
    "no such password file": (SASL | {"PASSWORD_FILE": "@none"}, "RILLFOLD_KAFKA_PASSWORD_FILE names"),
    "an empty password": (
        SASL | {"PASSWORD_FILE": "@empty"},
        "RILLFOLD_KAFKA_PASSWORD_FILE names a file that is empty",
    ),
    "no such authority": (SASL | {"CA_FILE": "@none"}, "RILLFOLD_KAFKA_CA_FILE names"),
    "an authority that is none": (SASL | {"CA_FILE": "@password"}, "RILLFOLD_KAFKA_CA_FILE names no certificates"),
    "a key alone": (SASL | {"KEY_FILE": "@own.pem"}, "RILLFOLD_KAFKA_KEY_FILE is set without"),
    "a certificate without its key": (SASL | {"CERT_FILE": "@authority.pem"}, "RILLFOLD_KAFKA_CERT_FILE and"),
    "a user at an open door": (
        {"USER": "fold"},
        "RILLFOLD_KAFKA_USER is not used with RILLFOLD_KAFKA_SECURITY=PLAINTEXT",
    ),
    "an authority without TLS": (SASL | {"SECURITY": "SASL_PLAINTEXT"}, "RILLFOLD_KAFKA_CA_FILE is not used"),
    "a password without SASL": (SASL | {"SECURITY": "SSL", "USER": ""}, "RILLFOLD_KAFKA_USER is not used"),
    "our own broker": (SASL | {"provider": "embedded"}, "set RILLFOLD_PROVIDER=external"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_lets_nobody_in_is_refused_by_name(case: str, files: Path) -> None:
    given, told = REFUSED[case]
    with pytest.raises(Stop) as refused:
        made(files, **given)
    assert told in str(refused.value)
    assert WORD not in str(refused.value)


@pytest.mark.parametrize("mechanism", ["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"])
@pytest.mark.parametrize("security", ["SASL_SSL", "SASL_PLAINTEXT"])
def test_every_client_gets_one_way_in(security: str, mechanism: str, files: Path) -> None:
    given = SASL | {"SECURITY": security, "MECHANISM": mechanism}
    if security == "SASL_PLAINTEXT":
        del given["CA_FILE"]
    access = made(files, **given)
    options, fausts = access.options(), credentials_of(access)
    assert options["security_protocol"] == fausts.protocol.value == security  # type: ignore[union-attr]
    assert options["sasl_mechanism"] == fausts.mechanism.value == mechanism  # type: ignore[union-attr]
    assert options["sasl_plain_password"] == fausts.password == WORD  # type: ignore[union-attr]
    assert WORD not in f"{access!r} {access.login!r} {fausts!r}"


def test_tls_alone_and_an_open_door(files: Path) -> None:
    own = {"CERT_FILE": "@own.pem", "KEY_FILE": "@own.pem", "CA_FILE": "@authority.pem"}
    assert made(files, SECURITY="SSL", **own).options()["security_protocol"] == "SSL"
    assert made(files, SECURITY="SSL").tls is not None
    assert made(files) == kafka_access(Settings(), "kafka:9094") == KafkaAccess("kafka:9094")
    assert credentials_of(KafkaAccess("kafka:9094")) is None
