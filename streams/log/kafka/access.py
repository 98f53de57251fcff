"""Where a Kafka is and who we are to it: the one place in which its clients are made."""

from dataclasses import dataclass, field
from ssl import SSLContext
from typing import Any, TypeVar

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer
from aiokafka.admin import AIOKafkaAdminClient

Client = TypeVar("Client", AIOKafkaConsumer, AIOKafkaProducer, AIOKafkaAdminClient)


@dataclass(frozen=True)
class Login:
    """By SASL. Nothing that is printed of it holds the password."""

    mechanism: str
    """PLAIN, SCRAM-SHA-256 or SCRAM-SHA-512."""
    user: str
    password: str = field(repr=False)


@dataclass(frozen=True)
class KafkaAccess:
    """What every client needs to get in. Without login and TLS: by an open door."""

    servers: str
    """host:port,host:port"""
    login: Login | None = None
    tls: SSLContext | None = field(default=None, repr=False)

    @property
    def protocol(self) -> str:
        """As Kafka calls it."""
        kind = "PLAINTEXT" if self.tls is None else "SSL"
        return kind if self.login is None else f"SASL_{kind}"

    @property
    def user(self) -> str:
        """Whom ACLs name, as far as we know: with TLS alone, a broker may read a name off our certificate."""
        if self.login is None:
            return "ANONYMOUS" if self.tls is None else "NAME-ON-OUR-CERTIFICATE"
        return self.login.user

    def options(self) -> dict[str, Any]:
        """By aiokafka's names."""
        given: dict[str, Any] = {"security_protocol": self.protocol, "ssl_context": self.tls}
        if self.login is not None:
            given |= {
                "sasl_mechanism": self.login.mechanism,
                "sasl_plain_username": self.login.user,
                "sasl_plain_password": self.login.password,
            }
        return given

    def client(self, kind: type[Client], **options: Any) -> Client:
        """Not started: see `streams.log.kafka.client`."""
        made: Client = kind(bootstrap_servers=self.servers, **self.options(), **options)
        return made
