"""Standard output that takes no more: whoever read it has gone, or its disk is full."""

import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from rillfold.cli.terminal.given import why
from schemas.errors import Stop

GONE = 128 + signal.SIGPIPE
"""As a shell tells of a program that a closed pipe has ended: `rillfold env | head -1` is no failure."""


class NotTold(Stop):
    """What there was to say stands nowhere."""


@contextmanager
def told() -> Iterator[None]:
    """Around all that a command does: raises `NotTold`, or ends without a word where nobody listens any more."""
    try:
        yield
    except SystemExit as end:
        if isinstance(end.__context__, BrokenPipeError):  # click and rich have each made an exit of it
            _forget()
            raise SystemExit(GONE) from None
        raise
    except OSError as error:
        if error.filename is not None or not _refuses():
            raise
        _forget()
        raise NotTold(f"standard output: {why(error)}") from error


def _refuses() -> bool:
    """An error that names no file may be another file's: whether it is this one's, an end of line tells."""
    try:
        sys.stdout.write("\n")
        sys.stdout.flush()
    except OSError:
        return True
    return False


def _forget() -> None:
    """Python would try once more at its end, and say so."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 1)
    os.close(nowhere)
