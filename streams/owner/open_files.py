"""How many files a fold holds open: more are asked for before it begins, and too few are refused by name."""

import resource

from streams.errors import Misconfigured

A_STORE, BESIDES = 8, 64
"""A store's own files, while it is small, and what a worker has beside its stores: connections, libraries, logs."""
ASKED_FOR = 1 << 16
"""Large stores hold a file for each 64 MiB."""


def have_room_for(stores: int) -> None:
    """Of a worker that may come to hold so many. In the middle of its work RocksDB would fail for want of one."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = ASKED_FOR if hard == resource.RLIM_INFINITY else min(hard, ASKED_FOR)
    if soft != resource.RLIM_INFINITY and soft < most:
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))
    if most < (needed := BESIDES + A_STORE * stores):
        raise Misconfigured(
            f"This process may have {most} files open, and a fold that holds {stores} changelog partitions needs "
            f"{needed}. Raise the limit (`ulimit -n`, LimitNOFILE of systemd, `--ulimit nofile` of Docker), or fold "
            f"fewer projections here (`--only`)."
        )
