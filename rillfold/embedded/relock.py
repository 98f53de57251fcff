"""Writes `jars.lock` anew: `python -m rillfold.embedded.relock`. Only this asks Maven what depends on what."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from rillfold.embedded.jars import LOCK

if TYPE_CHECKING:
    from jgo.maven import MavenContext

KAFKA = "4.1.2"
# Kafka's artifact leaves the choice of a log to its distribution; this is what that one ships.
LOGGING = "org.apache.logging.log4j:log4j-slf4j-impl:2.25.3"
SETS = {
    "kafka": (f"org.apache.kafka:kafka_2.13:{KAFKA}", LOGGING),
    "kafka-tools": (f"org.apache.kafka:kafka-tools:{KAFKA}", LOGGING),
}


def main() -> None:
    write(LOCK, SETS)


def write(lock: Path, sets: Mapping[str, tuple[str, ...]]) -> None:
    """`sets`: the name of each set to the coordinates whose closure it is."""
    from jgo.maven import MavenContext

    text = "# Written by `make lock`. Each line: Maven coordinate, sha256, bytes.\n"
    with tempfile.TemporaryDirectory() as scratch:
        context = MavenContext(repo_cache=Path(scratch) / "repository")
        for name, endpoints in sets.items():
            lines = _closure(endpoints, context, Path(scratch) / name)
            text += f"\n[{name}]\njars = [\n" + "".join(f'    "{line}",\n' for line in lines) + "]\n"
    lock.write_text(text)


def _closure(endpoints: tuple[str, ...], context: MavenContext, scratch: Path) -> list[str]:
    """Each endpoint alone, the first one's versions win: resolved together, one would manage the other's versions."""
    from jgo.env import EnvironmentBuilder, LinkStrategy

    builder = EnvironmentBuilder(context=context, cache_dir=scratch, link_strategy=LinkStrategy.HARD)
    chosen: dict[tuple[str, str], str] = {}
    for endpoint in endpoints:
        lockfile = builder.from_endpoint(endpoint).lockfile
        assert lockfile is not None
        for jar in lockfile.dependencies:
            component = context.project(jar.groupId, jar.artifactId).at_version(jar.version)
            size = component.artifact().resolve().stat().st_size
            line = f"{jar.groupId}:{jar.artifactId}:{jar.version} {jar.sha256} {size}"
            chosen.setdefault((jar.groupId, jar.artifactId), line)
    return sorted(chosen.values())


if __name__ == "__main__":
    main()
