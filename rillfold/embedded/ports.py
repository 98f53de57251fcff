"""Local ports for the servers."""

import random
import socket
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

import msgspec

from rillfold.embedded.errors import StackError

HOST = "127.0.0.1"
# Below the range that the kernel hands to outgoing connections, so that none of them takes a port before we bind it.
FREE_RANGE = range(20_000, 32_000)
KEPT = "ports.json"


def is_free(port: int, host: str = HOST) -> bool:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError:
            return False
    return True


def free_port(*given: int) -> int:
    """`given`: those that were drawn before, for who binds none of them until it has all."""
    for port in random.SystemRandom().sample(FREE_RANGE, 200):
        if port not in given and is_free(port):
            return port
    raise StackError(f"No free port on {HOST} between {FREE_RANGE.start} and {FREE_RANGE.stop}: stop other servers.")


def must_be_free(port: int, variable: str, host: str = HOST) -> int:
    """Found out before anything starts. 0 is any port, chosen when it is bound."""
    if not is_free(port, host):
        raise StackError(f"Port {port} on {host} is in use: stop what listens there, or set {variable} to another.")
    return port


def chosen(port: int, variable: str, before: int | None, *given: int) -> int:
    """The one that is set; else the one of last time, so that what a shell or a page was told stays true; else any."""
    if port:
        return must_be_free(port, variable)
    return before if before and before not in given and is_free(before) else free_port(*given)


def of_last_time(data_dir: Path) -> Mapping[str, int]:
    try:
        found = msgspec.json.decode((data_dir / KEPT).read_bytes(), type=dict[str, int])
    except (OSError, msgspec.DecodeError):
        return {}
    return {name: port for name, port in found.items() if port in FREE_RANGE}


def keep(data_dir: Path, used: Mapping[str, int]) -> None:
    """A stack that cannot write it starts all the same."""
    with suppress(OSError):
        draft = data_dir / f"{KEPT}.draft"
        draft.write_bytes(msgspec.json.encode(used))
        draft.replace(data_dir / KEPT)
