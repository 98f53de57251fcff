"""The ladder's root. A caller asks one thing of an error: retry, dead-letter, or stop?"""


class RillfoldError(Exception):
    """The message names the thing, the place and the remedy."""


class Retry(RillfoldError):
    """The world is in the way (a registry, a database, a broker): the same call may succeed later."""


class Poison(RillfoldError):
    """This record will never succeed: it belongs on the dead-letter topic."""


class Stop(RillfoldError):
    """Going on would do harm: a person must look."""


def one_line(told: object) -> str:
    """Of what others say, in a message of ours: libraries write several."""
    return " ".join(str(told).split())
