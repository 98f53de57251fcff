"""What the tests of the stack share: a `rillfold up` of one's own, and questions about processes and data."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import psycopg
from confluent_kafka import Consumer, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic

from rillfold.embedded import state
from rillfold.embedded.state import Endpoints, Running

ROOT = Path(__file__).parents[2]
TOPIC = "kept"
PATIENCE = 60.0


class Up:
    """`rillfold up` as a person starts it: a process of its own."""

    def __init__(self, data_dir: Path, *arguments: str, **environment: str) -> None:
        self.data_dir = data_dir
        self.process = subprocess.Popen(
            [sys.executable, "-m", "rillfold", "up", *arguments],
            env=os.environ | {"RILLFOLD_DATA_DIR": str(data_dir)} | environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def ready(self) -> Running:
        until(lambda: state.read(self.data_dir) is not None or self.process.poll() is not None)
        running = state.read(self.data_dir)
        assert running is not None, self.output()
        return running

    def output(self) -> str:
        return self.process.communicate(timeout=PATIENCE)[0]

    def send(self, number: signal.Signals) -> None:
        self.process.send_signal(number)


@contextmanager
def up(data_dir: Path, *arguments: str, **environment: str) -> Iterator[Up]:
    started = Up(data_dir, *arguments, **environment)
    try:
        yield started
    finally:
        started.process.terminate()
        started.process.communicate(timeout=PATIENCE)


def until(condition: Callable[[], bool], patience: float = PATIENCE) -> None:
    end = time.monotonic() + patience
    while not condition():
        assert time.monotonic() < end, f"not within {patience} s"
        time.sleep(0.02)


def processes_on(data_dir: Path) -> list[str]:
    """Everything whose command line names the folder, but for those who merely look."""
    found = []
    for process in psutil.process_iter():
        try:
            line = process.cmdline()
        except (psutil.NoSuchProcess, psutil.ZombieProcess):
            continue
        if any(str(data_dir) in part for part in line) and process.pid != os.getpid():
            found.append(" ".join(line)[:200])
    return found


def gone(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def keep(endpoints: Endpoints, text: str) -> None:
    admin = AdminClient({"bootstrap.servers": endpoints.bootstrap_servers})
    for made in admin.create_topics([NewTopic(TOPIC, 1)]).values():
        made.result()
    producer = Producer({"bootstrap.servers": endpoints.bootstrap_servers})
    producer.produce(TOPIC, text.encode())
    assert producer.flush(20) == 0
    assert endpoints.postgres_dsn is not None
    with psycopg.connect(endpoints.postgres_dsn) as database:
        database.execute("create table kept (text text)")
        database.execute("insert into kept values (%s)", [text])


def kept(endpoints: Endpoints) -> tuple[list[str], list[str]]:
    """What the log holds, and what the database holds."""
    consumer = Consumer({"bootstrap.servers": endpoints.bootstrap_servers, "group.id": "reader"})
    try:
        _, end = consumer.get_watermark_offsets(TopicPartition(TOPIC, 0), timeout=20)
        consumer.assign([TopicPartition(TOPIC, 0, 0)])
        records = consumer.consume(end, timeout=20)
    finally:
        consumer.close()
    assert endpoints.postgres_dsn is not None
    with psycopg.connect(endpoints.postgres_dsn) as database:
        rows = [row[0] for row in database.execute("select text from kept").fetchall()]
    return [record.value().decode() for record in records], rows
