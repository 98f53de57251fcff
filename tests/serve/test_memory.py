"""How much memory there is for keys and values, where nobody says it."""

from __future__ import annotations

from pathlib import Path

import pytest

from gpu_workers.bases.host import host_memory

GIB = 1 << 30
WHOLE = host_memory(Path("/nowhere"))


@pytest.mark.parametrize(
    ("groups", "limits", "expected"),
    [
        ("0::/\n", {"memory.max": "536870912\n"}, GIB // 2),
        ("0::/\n", {"memory.max": "max\n"}, WHOLE),
        ("0::/a.slice/b\n", {"a.slice/b/memory.max": "max\n", "a.slice/memory.max": "1048576\n"}, 1 << 20),
        ("5:cpu,cpuacct:/x\n4:memory:/x\n", {"memory/x/memory.limit_in_bytes": "1048576"}, 1 << 20),
        ("4:memory:/docker/of-the-host\n0::/\n", {"memory/memory.limit_in_bytes": "2097152"}, 2 << 20),
        ("4:memory:/\n", {"memory/memory.limit_in_bytes": "9223372036854771712"}, WHOLE),
        ("5:cpu:/x\n", {"cpu/x/memory.limit_in_bytes": "7"}, WHOLE),
    ],
)
def test_a_container_has_what_it_is_allowed(tmp_path: Path, groups: str, limits: dict[str, str], expected: int) -> None:
    files = {"proc/self/cgroup": groups} | {f"sys/fs/cgroup/{name}": limit for name, limit in limits.items()}
    for name, said in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(said)
    assert host_memory(tmp_path) == expected
