"""Which servers the suite runs on, and that its output says so. No Docker engine is needed to decide against one."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from rillfold.embedded import ports
from rillfold.embedded.state import Endpoints
from rillfold.settings import Settings
from tests.support.servers import COMPOSE, Choice, choose, docker_is_silent, in_containers, reached_at

ROOT = Path(__file__).parents[2]
NOWHERE = "tcp://127.0.0.1:1"


def test_named_servers_go_before_a_docker_engine_that_nobody_asks() -> None:
    def never() -> None:
        raise AssertionError("asked")

    chosen = choose(Settings(bootstrap_servers="kafka:9092"), never)
    assert chosen == Choice("named", "RILLFOLD_BOOTSTRAP_SERVERS is kafka:9092", Endpoints("kafka:9092"))


def test_containers_where_an_engine_answers_and_embedded_servers_where_none_does() -> None:
    assert choose(Settings(), lambda: None) == Choice("containers", "a Docker engine answers")
    assert choose(Settings(), lambda: "refused") == Choice("embedded", "no Docker engine answers: refused")


def test_an_engine_that_is_not_there_is_known_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DOCKER_HOST", NOWHERE)
    assert "refused" in str(docker_is_silent())


def test_pytest_says_which_and_why(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DOCKER_HOST", NOWHERE)
    monkeypatch.delenv("RILLFOLD_BOOTSTRAP_SERVERS", raising=False)
    line = [sys.executable, "-m", "pytest", "--collect-only", "tests/jobs/test_prices.py"]
    said = subprocess.run(line, cwd=ROOT, capture_output=True, text=True).stdout
    assert "servers: embedded (no Docker engine answers: " in said


def test_only_what_the_broker_says_of_its_address_differs_from_compose() -> None:
    given = yaml.safe_load(COMPOSE.read_text())["services"]["kafka"]["environment"]
    (name, told), *others = reached_at("10.0.0.7:31000").items()
    assert not others
    outside, inside = given[name].split(",")
    assert told.split(",") == ["OUTSIDE://10.0.0.7:31000", inside.replace("kafka", "localhost")]
    assert outside == "OUTSIDE://127.0.0.1:9092"


@pytest.mark.docker
def test_servers_in_containers() -> None:
    if silent := docker_is_silent():
        pytest.skip(f"no Docker engine: {silent}")
    import psycopg
    from confluent_kafka.admin import AdminClient

    with in_containers() as endpoints:
        admin = AdminClient({"bootstrap.servers": endpoints.bootstrap_servers})
        (broker,) = admin.list_topics(timeout=20).brokers.values()
        assert f"{broker.host}:{broker.port}" == endpoints.bootstrap_servers
        assert endpoints.postgres_dsn is not None
        with psycopg.connect(endpoints.postgres_dsn) as database:
            assert database.execute("SELECT 1").fetchone() == (1,)


def test_ports_that_are_drawn_before_any_is_bound_are_all_different():
    given = ports.FREE_RANGE[::2]
    assert not {ports.free_port(*given) for _ in range(20)} & set(given)
