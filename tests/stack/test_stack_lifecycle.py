"""The stack as a person meets it: started, used, stopped, killed, started again. Rows H1 and H2."""

from __future__ import annotations

import fcntl
import os
import signal
import socket
import subprocess
import sys
import threading
from pathlib import Path

import msgspec
import pytest

from rillfold.embedded import stack, state
from rillfold.embedded.errors import StackError
from rillfold.embedded.ports import HOST, chosen, free_port, of_last_time
from rillfold.embedded.ports import keep as keep_ports
from rillfold.embedded.stack import running
from rillfold.embedded.state import Endpoints, attach
from rillfold.settings import Settings, from_env
from tests.support.up import ROOT, Up, gone, keep, kept, processes_on, until, up


def test_kill_minus_9_of_up_leaves_nothing_and_the_next_start_has_the_data(tmp_path: Path) -> None:
    with up(tmp_path) as first:
        before = first.ready().endpoints
        keep(before, "written before the kill")
        first.send(signal.SIGKILL)
        until(lambda: not processes_on(tmp_path), patience=5)
        assert state.read(tmp_path) is None
    with running(tmp_path) as endpoints:
        assert kept(endpoints) == (["written before the kill"], ["written before the kill"])
        assert endpoints == before, "what a shell was told stays true"


def test_a_port_of_last_time_that_is_taken_or_none_is_another(tmp_path: Path) -> None:
    with socket.create_server((HOST, free_port())) as taken:
        before = taken.getsockname()[1]
        keep_ports(tmp_path, {"kafka": before})
        assert of_last_time(tmp_path) == {"kafka": before}
        assert chosen(0, "RILLFOLD_KAFKA_PORT", before) != before
    assert chosen(0, "RILLFOLD_KAFKA_PORT", before) == before
    assert chosen(0, "RILLFOLD_POSTGRES_PORT", before, before) != before
    for said in (b"{", b'{"kafka": "x"}', b'{"kafka": 80}', b'{"kafka": -1}'):
        (tmp_path / "ports.json").write_bytes(said)
        assert of_last_time(tmp_path) == {}


def test_an_owner_that_is_dead_and_not_yet_waited_for_owns_nothing(tmp_path: Path) -> None:
    """Its keepers hold the lock while they stop their servers. Whoever started it may wait for it late, or never."""
    owner = subprocess.Popen([sys.executable, "-c", ""])
    until(lambda: gone(owner.pid))
    lock = os.open(tmp_path / "stack.lock", os.O_RDWR | os.O_CREAT)
    fcntl.flock(lock, fcntl.LOCK_EX)
    os.write(lock, str(owner.pid).encode())
    state.write(tmp_path, state.Running(Endpoints("127.0.0.1:1"), owner.pid, {}))
    assert state.read(tmp_path) is None
    letting_go = threading.Timer(0.5, os.close, [lock])
    letting_go.start()
    with state.held(tmp_path):
        assert int((tmp_path / "stack.lock").read_text()) == os.getpid()
    letting_go.join()
    owner.wait()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_stops_cleanly(tmp_path: Path, number: signal.Signals) -> None:
    with up(tmp_path) as started:
        started.ready()
        started.send(number)
        assert started.process.wait(60) == 0
    assert processes_on(tmp_path) == []
    assert not (tmp_path / "stack.json").exists()
    assert (tmp_path / "kafka" / "data" / ".kafka_cleanshutdown").exists()
    assert "database system is shut down" in (tmp_path / "logs" / "postgres.log").read_text()


def test_two_stacks_side_by_side_share_nothing(tmp_path: Path) -> None:
    with running(tmp_path / "one") as one, running(tmp_path / "two") as two:
        keep(one, "one")
        keep(two, "two")
        assert kept(one) == (["one"], ["one"])
        assert kept(two) == (["two"], ["two"])


def test_a_second_up_on_the_same_folder_is_refused_and_other_verbs_find_the_first(tmp_path: Path) -> None:
    with up(tmp_path, "--no-postgres", "--json") as first:
        found = first.ready()
        with up(tmp_path) as second:
            refusal = second.output()
            assert second.process.returncode == 1
        assert f"A stack already runs on {tmp_path} (process {first.process.pid})" in refusal
        assert attach(Settings(data_dir=tmp_path)) == found.endpoints
        down = subprocess.run(
            [sys.executable, "-m", "rillfold", "down"],
            env=os.environ | {"RILLFOLD_DATA_DIR": str(tmp_path)},
            cwd=ROOT,
            check=True,
        )
        assert down.returncode == 0
        told = msgspec.json.decode(first.output().splitlines()[0])
        assert told["endpoints"]["bootstrap_servers"] == found.endpoints.bootstrap_servers


def test_up_says_which_server_ended_by_itself(tmp_path: Path) -> None:
    with up(tmp_path, "--no-postgres") as started:
        broker = started.ready().children["kafka"]
        os.kill(broker, signal.SIGKILL)
        said = started.output()
        assert started.process.returncode == 1
    assert "Kafka ended by itself" in said
    assert gone(broker)


def test_a_busy_port_is_named(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        settings = msgspec.structs.replace(from_env(), kafka_port=port)
        with (
            pytest.raises(StackError, match=rf"Port {port} .* in use: .* RILLFOLD_KAFKA_PORT"),
            running(tmp_path, settings=settings),
        ):
            pass
    assert processes_on(tmp_path) == []


@pytest.mark.parametrize(
    ("command", "variable"),
    [
        (("up", "--workers"), "RILLFOLD_API_PORT"),
        (("up", "--workers"), "RILLFOLD_SERVE_PORT"),
        (("api",), "RILLFOLD_API_PORT"),
    ],
)
def test_a_busy_port_of_http_is_named_before_anything_starts(
    tmp_path: Path, command: tuple[str, ...], variable: str
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        others = {"RILLFOLD_API_PORT": str(free_port()), "RILLFOLD_DATA_DIR": str(tmp_path)}
        environment = os.environ | others | {variable: port}
        line = [sys.executable, "-m", "rillfold", *command]
        told = subprocess.run(line, env=environment, cwd=ROOT, check=False, capture_output=True, text=True)
    assert told.returncode == 1
    assert f"Port {port}" in told.stderr and variable in told.stderr
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_is_named_before_anything_starts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stack, "ROOM_NEEDED", 2**62)
    with pytest.raises(StackError, match=r"MiB are free at .*make room"), running(tmp_path):
        pass


def test_what_a_killed_stack_left_behind_is_not_taken_for_a_stack(tmp_path: Path) -> None:
    endpoints = Endpoints("127.0.0.1:1")
    (tmp_path / "stack.lock").write_text(str(os.getpid()))
    state.write(tmp_path, state.Running(endpoints, os.getpid(), {}))
    with pytest.raises(StackError, match=r"No stack is running on .*run `rillfold up`"):
        attach(Settings(data_dir=tmp_path))


def test_a_provider_names_the_endpoints(tmp_path: Path) -> None:
    external = Settings(provider="external", bootstrap_servers="kafka:9092", postgres_dsn="postgresql://db/x")
    assert attach(external) == Endpoints("kafka:9092", "postgresql://db/x")
    assert attach(Settings(provider="compose")) == state.COMPOSE
    with pytest.raises(StackError, match="RILLFOLD_BOOTSTRAP_SERVERS"):
        attach(Settings(provider="external"))


@pytest.mark.parametrize("field", ["bootstrap_servers", "postgres_dsn"])
def test_a_named_server_is_never_passed_over_in_silence(field: str) -> None:
    remedy = rf"RILLFOLD_{field.upper()} names another server.*set RILLFOLD_PROVIDER=external, or unset"
    with pytest.raises(StackError, match=remedy):
        attach(Settings(provider="compose", **{field: "there"}))
    assert attach(Settings(provider="compose", **{field: getattr(state.COMPOSE, field)})) == state.COMPOSE


def test_up_is_no_other_server_than_the_one_that_was_named(tmp_path: Path) -> None:
    named = Up(tmp_path, "--no-postgres", RILLFOLD_POSTGRES_DSN="postgresql://mine/orders")
    assert "RILLFOLD_POSTGRES_DSN names another server" in named.output()
    assert named.process.returncode != 0
    assert processes_on(tmp_path) == []
