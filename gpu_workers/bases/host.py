"""How much memory a machine has. No torch: whoever admits a run has none."""

import os
from collections.abc import Iterator
from pathlib import Path


def host_memory(root: Path = Path("/")) -> int:
    """Of this machine, or what the container, or whatever else this process runs in, may have of it."""
    return min([os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"), *_allowed(root)])


def _allowed(root: Path) -> Iterator[int]:
    """By the control groups that hold this process, of both versions: its own and those around it."""
    held = root / "proc/self/cgroup"
    for line in held.read_text().splitlines() if held.is_file() else []:
        _, kinds, own = line.split(":", 2)
        if kinds and "memory" not in kinds.split(","):
            continue
        top, name = ("memory", "memory.limit_in_bytes") if kinds else ("", "memory.max")
        group = Path(own.lstrip("/"))
        for each in (group, *group.parents):
            limit = root / "sys/fs/cgroup" / top / each / name
            if limit.is_file() and (said := limit.read_text().strip()).isdecimal():
                yield int(said)
