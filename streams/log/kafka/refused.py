"""What a broker does not let us do, by name: who we are, what we asked for, and what to set or to grant."""

import asyncio
import ssl
from collections.abc import AsyncIterator, Collection, Iterable, Iterator, Mapping
from contextlib import asynccontextmanager

from aiokafka import errors as kafka
from aiokafka.conn import AIOKafkaConnection, collect_hosts
from aiokafka.protocol.metadata import MetadataRequest

from schemas.errors import Stop
from streams.errors import Unreachable
from streams.log.kafka.access import KafkaAccess

ANSWER_MS = 5_000
UNREACHABLE = (kafka.KafkaConnectionError, kafka.NoBrokersAvailable, kafka.NodeNotReadyError, kafka.KafkaTimeoutError)
ENDED = (
    kafka.KafkaConnectionError,
    ConnectionResetError,
    ConnectionAbortedError,
    ssl.SSLEOFError,
    ssl.SSLZeroReturnError,
    ssl.SSLSyscallError,
)
"""By who takes a connection: he refuses what was said, or is about to end."""
LOGIN = (kafka.SaslAuthenticationFailed, kafka.UnsupportedSaslMechanismError, kafka.IllegalSaslStateError)
THINGS: Mapping[type[kafka.KafkaError], tuple[str, str]] = {
    kafka.TopicAuthorizationFailedError: ("topic", ""),
    kafka.GroupAuthorizationFailedError: ("group", "Read"),
    kafka.TransactionalIdAuthorizationFailed: ("transactional-id", "Write"),
    kafka.ClusterAuthorizationFailedError: ("cluster", ""),
}
"""What an ACL would be about, and the right that is wanted where it is always the same."""
RIGHTS = tuple(THINGS)


class LoginRefused(Stop):
    """The broker does not take who we say that we are."""

    def __init__(self, access: KafkaAccess, detail: object) -> None:
        who = "" if access.login is None else f" of {access.login.user} by {access.login.mechanism}"
        super().__init__(
            f"Kafka at {access.servers} refuses the login{who} ({detail}). Correct RILLFOLD_KAFKA_USER, what stands in "
            f"RILLFOLD_KAFKA_PASSWORD_FILE, or RILLFOLD_KAFKA_MECHANISM, and start again."
        )


class BrokerNotTrusted(Stop):
    """Whoever answers shows no certificate that we have to believe."""

    def __init__(self, access: KafkaAccess, detail: object) -> None:
        super().__init__(
            f"Whoever answers at {access.servers} shows a certificate that is not trusted here ({detail}). Nothing was "
            f"said to it. Name the authority that signed it by RILLFOLD_KAFKA_CA_FILE, have an expired one renewed, or "
            f"name the broker in RILLFOLD_BOOTSTRAP_SERVERS as its certificate does."
        )


class NoTls(Stop):
    """The two do not find together in TLS."""

    def __init__(self, access: KafkaAccess, detail: object) -> None:
        super().__init__(
            f"TLS with {access.servers} fails ({detail}). Set RILLFOLD_KAFKA_SECURITY to what that door speaks; if it "
            f"asks for a certificate of ours, RILLFOLD_KAFKA_CERT_FILE and RILLFOLD_KAFKA_KEY_FILE."
        )


class NotAllowed(Stop):
    """No ACL lets us."""

    def __init__(self, user: str, right: str, kind: str, names: Collection[str]) -> None:
        what = f"{kind} {', '.join(sorted(names))}".strip()
        flags = " ".join(f"--{kind} {name}" for name in sorted(names)) or f"--{kind}"
        super().__init__(
            f"Kafka lets User:{user} not {right} {what}. Grant it (kafka-acls --add --allow-principal User:{user} "
            f"--operation {right} {flags}) and start again; docs/operations.md says what each role needs."
        )


@asynccontextmanager
async def by_name(access: KafkaAccess, right: str, names: Collection[str] = ()) -> AsyncIterator[None]:
    """Whatever keeps us out in this block ends it by an error that says what to set or to grant.

    `right` and `names` are what is asked for here, where aiokafka does not say.
    """
    try:
        yield
    except UNREACHABLE as error:
        await reach(access)
        raise Unreachable(access.servers, error) from error
    except LOGIN as error:
        raise LoginRefused(access, error) from error
    except RIGHTS as error:
        raise not_allowed(error, access, right, names) from error


def not_allowed(error: kafka.KafkaError, access: KafkaAccess, right: str, names: Collection[str]) -> NotAllowed:
    thing, always = next(found for kind, found in THINGS.items() if isinstance(error, kind))
    if thing == "cluster" and names:
        # Of one who may write to no topic at all the broker says that he may not write to the cluster.
        thing = "topic"
    return NotAllowed(access.user, always or right, thing, set(_told(error.args)) or set(names))


def look_for_rights(answered: Iterable[tuple[str, int]]) -> None:
    """Topic and Kafka's code, as in an answer about several."""
    refused = {topic for topic, code in answered if kafka.for_code(code) is kafka.TopicAuthorizationFailedError}
    if refused:
        raise kafka.TopicAuthorizationFailedError(refused)


def _told(args: object) -> Iterator[str]:
    """aiokafka names one thing, a set of them, or nothing."""
    for each in args if isinstance(args, tuple | set | frozenset) else ():
        yield from (each,) if isinstance(each, str) else _told(each)


async def reach(access: KafkaAccess) -> None:
    """Connects as clients do. They try each server for ever and keep the reason to themselves: here it is raised.

    Returns where one answers; raises `Unreachable` where none does.
    """
    silent: Exception = Unreachable(access.servers, "no server is named")
    for host, port, _ in collect_hosts(access.servers):
        try:
            return await _ask(access, host, port)
        except (OSError, kafka.KafkaError, TimeoutError) as error:
            if refusal := _refusal(access, error):
                raise refusal from error
            silent = error
    detail: object = silent
    if isinstance(silent, ENDED):
        detail = f"it ends each connection: another door than RILLFOLD_KAFKA_SECURITY={access.protocol} says?"
    raise Unreachable(access.servers, detail) from silent


async def _ask(access: KafkaAccess, host: str, port: int) -> None:
    conn = AIOKafkaConnection(host, port, request_timeout_ms=ANSWER_MS, **access.options())
    try:
        await conn.connect()
        # A door that wants a login lets one in without, and ends whoever asks for more.
        await conn.send(MetadataRequest([]))
    finally:
        ended = conn.close()
        if conn._protocol is not None:
            await asyncio.wait({ended}, timeout=ANSWER_MS / 1000)


def _refusal(access: KafkaAccess, error: BaseException | None) -> Stop | None:
    """None: it may be another thing in a moment."""
    while error is not None:
        if isinstance(error, LOGIN):
            return LoginRefused(access, error)
        if isinstance(error, ssl.SSLCertVerificationError):
            return BrokerNotTrusted(access, error.verify_message)
        if isinstance(error, ssl.SSLError) and not isinstance(error, ENDED):
            return NoTls(access, error.reason or error)
        error = error.__cause__
    return None
