"""How the settings let us into a Kafka. What cannot be used ends the program before anybody is asked."""

import ssl
from pathlib import Path
from typing import TYPE_CHECKING

from rillfold.settings import PREFIX, Settings
from schemas.errors import Stop

if TYPE_CHECKING:
    from streams.log.kafka.access import KafkaAccess, Login

EXTERNAL = "external"
OF_LOGIN, OF_TLS = ("kafka_user", "kafka_password_file"), ("kafka_ca_file", "kafka_cert_file", "kafka_key_file")


class UnusableAccess(Stop):
    """Settings by which nobody gets in."""

    def __init__(self, setting: str, why: str) -> None:
        super().__init__(f"{PREFIX}{setting.upper()} {why}")


def kafka_access(settings: Settings, servers: str) -> "KafkaAccess":
    """The servers' own door, as the settings say."""
    from streams.log.kafka.access import KafkaAccess  # aiokafka: only who reaches a log pays for it

    security, there = settings.kafka_security, settings.provider == EXTERNAL
    if not there and security != "PLAINTEXT":
        raise UnusableAccess(
            "kafka_security",
            f"is {security}, and RILLFOLD_PROVIDER={settings.provider} has a Kafka with an open door on this machine: "
            "set RILLFOLD_PROVIDER=external, or unset it.",
        )
    for fields, part in ((OF_LOGIN, "SASL"), (OF_TLS, "SSL")):
        if there and part not in security:
            _refuse_unused(settings, fields, security)
    login = _login(settings) if "SASL" in security else None
    return KafkaAccess(servers, login, _tls(settings) if "SSL" in security else None)


def _refuse_unused(settings: Settings, fields: tuple[str, ...], security: str) -> None:
    """Who names a password or an authority does not mean an open door."""
    for field in fields:
        if getattr(settings, field) is not None:
            wanted = "SASL_SSL or SASL_PLAINTEXT" if fields is OF_LOGIN else "SSL or SASL_SSL"
            raise UnusableAccess(
                field, f"is not used with RILLFOLD_KAFKA_SECURITY={security}: set that to {wanted}, or unset this."
            )


def _login(settings: Settings) -> "Login":
    from streams.log.kafka.access import Login

    for field in OF_LOGIN:
        if not getattr(settings, field):
            raise UnusableAccess(field, f"is not set, and RILLFOLD_KAFKA_SECURITY={settings.kafka_security} needs it.")
    assert settings.kafka_user is not None
    try:
        password = _read(settings, "kafka_password_file").decode().removesuffix("\n").removesuffix("\r")
    except UnicodeDecodeError:
        raise UnusableAccess("kafka_password_file", "names a file that is no text: write the password there.") from None
    if not password:
        raise UnusableAccess("kafka_password_file", "names a file that is empty: write the password there.")
    return Login(settings.kafka_mechanism, settings.kafka_user, password)


def _tls(settings: Settings) -> ssl.SSLContext:
    for field in OF_TLS:
        if getattr(settings, field) is not None:
            _read(settings, field)
    cert, key = settings.kafka_cert_file, settings.kafka_key_file
    if key is not None and cert is None:
        raise UnusableAccess("kafka_key_file", "is set without RILLFOLD_KAFKA_CERT_FILE: set both, or none.")
    try:
        context = ssl.create_default_context(cafile=settings.kafka_ca_file)
    except ssl.SSLError as error:
        raise UnusableAccess("kafka_ca_file", f"names no certificates in PEM ({error.reason}).") from None
    if cert is not None:
        try:
            context.load_cert_chain(cert, key, password="")
        except ssl.SSLError as error:
            needed = "a certificate and its own key in PEM, not encrypted"
            why = f"and RILLFOLD_KAFKA_KEY_FILE name not {needed} ({error.reason})."
            raise UnusableAccess("kafka_cert_file", why) from None
    return context


def _read(settings: Settings, field: str) -> bytes:
    path: Path = getattr(settings, field)
    try:
        return path.read_bytes()
    except OSError as error:
        why = f"names {path}, which cannot be read ({error.strerror}): correct the path, or the rights."
        raise UnusableAccess(field, why) from None
