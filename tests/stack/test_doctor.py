"""`rillfold doctor` finds what keeps the stack from running, and says what to do."""

from __future__ import annotations

import os
import socket
import sys
from pathlib import Path

import msgspec
import pytest
from click.testing import CliRunner

from rillfold.cli.operate.doctor import doctor
from rillfold.embedded import checks
from rillfold.embedded.checks import Finding, examine
from rillfold.embedded.state import Endpoints, Running, held, write
from rillfold.settings import Settings, from_env


def found(settings: Settings, what: str) -> Finding:
    return next(finding for finding in examine(settings) if finding.what == what)


def test_this_machine_has_no_problem(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("JAVA_TOOL_OPTIONS", "-Xmx64m")  # which every Java repeats before all else that it says
    settings = msgspec.structs.replace(from_env(), data_dir=tmp_path, api_port=0, serve_port=0)
    assert [finding for finding in examine(settings) if finding.state == "problem"] == []
    assert found(settings, "Java").found.startswith("openjdk version")
    assert "PostgreSQL" in found(settings, "Postgres").found


def test_an_empty_cache_is_a_note_with_the_size_to_come(tmp_path: Path) -> None:
    finding = found(Settings(data_dir=tmp_path, cache_dir=tmp_path), "Kafka")
    assert finding.state == "note"
    assert "needs the network" in finding.remedy


def test_a_busy_port_is_a_problem(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        finding = found(Settings(data_dir=tmp_path, kafka_port=taken.getsockname()[1]), "Port")
    assert finding.state == "problem"
    assert "RILLFOLD_KAFKA_PORT" in finding.remedy


def test_a_broker_that_does_not_answer_is_a_problem(tmp_path: Path) -> None:
    finding = found(Settings(provider="external", bootstrap_servers="127.0.0.1:9"), "Stack")
    assert finding.state == "problem"
    assert "127.0.0.1:9" in finding.found


def test_a_postgres_of_ones_own_is_asked_and_its_password_not_told(stack: Endpoints) -> None:
    there = Settings(provider="external", bootstrap_servers="127.0.0.1:9", postgres_dsn=stack.postgres_dsn)
    assert found(there, "Read model").state == "ok"
    away = msgspec.structs.replace(there, postgres_dsn="postgresql://me:hidden@127.0.0.1:9/none")
    finding = found(away, "Read model")
    assert (finding.state, "RILLFOLD_POSTGRES_DSN" in finding.remedy) == ("problem", True)
    assert "hidden" not in finding.found
    assert found(msgspec.structs.replace(there, postgres_dsn=None), "Read model").state == "note"


def test_only_a_stack_that_does_not_run_yet_is_a_note(tmp_path: Path) -> None:
    assert found(Settings(data_dir=tmp_path), "Stack").state == "note"
    passed_over = found(Settings(provider="compose", bootstrap_servers="127.0.0.1:9"), "Stack")
    assert passed_over.state == "problem"
    with held(tmp_path):
        write(tmp_path, Running(Endpoints("127.0.0.1:1"), os.getpid(), {}))
        passed_over = found(Settings(data_dir=tmp_path, bootstrap_servers="127.0.0.1:9"), "Stack")
    assert passed_over.state == "problem"
    assert "RILLFOLD_BOOTSTRAP_SERVERS names another server" in passed_over.found


def test_a_wrong_python_and_a_missing_package_are_problems(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(sys, "version_info", (3, 10, 2))
    monkeypatch.setattr(checks.metadata, "requires", lambda _name: ["no-such-package>=1"])
    settings = Settings(provider="external", bootstrap_servers="127.0.0.1:9")
    assert found(settings, "Python").state == "problem"
    assert found(settings, "Packages").found == "no-such-package not installed"


def test_events_that_are_read_in_python_are_a_note(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checks, "IN_C", False)
    finding = found(Settings(provider="external", bootstrap_servers="127.0.0.1:9"), "Readers")
    assert finding.state == "note" and "gcc" in finding.remedy


def test_a_problem_is_exit_status_1(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(checks, "ROOM_NEEDED", 2**62)
    monkeypatch.setenv("RILLFOLD_DATA_DIR", str(tmp_path))
    result = CliRunner().invoke(doctor, ["--json"])
    assert result.exit_code == 1
    findings = msgspec.json.decode(result.output)["findings"]
    assert [one["what"] for one in findings if one["state"] == "problem"] == ["Disk"]
