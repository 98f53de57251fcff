"""Writes this folder's `jars.lock` anew: `python -m bench.peers.kafka_streams.relock`."""

from pathlib import Path

from rillfold.embedded.relock import KAFKA, write

LOCK = Path(__file__).with_name("jars.lock")
SETS = {
    "kafka-streams": (
        f"org.apache.kafka:kafka-streams:{KAFKA}",
        "org.apache.avro:avro:1.12.1",
        "org.slf4j:slf4j-nop:1.7.36",
    ),
    # Eclipse's compiler: a JRE with these jars stands in for a JDK.
    "compiler": ("org.eclipse.jdt:ecj:3.44.0",),
}


if __name__ == "__main__":
    write(LOCK, SETS)
