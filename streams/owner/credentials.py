"""What Faust's own clients need to get in, by its names."""

from faust.auth import Credentials, SASLCredentials, SSLCredentials

from streams.log.kafka.access import KafkaAccess


def credentials_of(access: KafkaAccess) -> Credentials | None:
    if access.login is not None:
        mechanism, user, password = access.login.mechanism, access.login.user, access.login.password
        return SASLCredentials(username=user, password=password, mechanism=mechanism, ssl_context=access.tls)
    return None if access.tls is None else SSLCredentials(access.tls)
