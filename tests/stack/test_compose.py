"""docker-compose.yml starts the same stack: the same broker settings, pinned images, verbs that exist. Row H2."""

from __future__ import annotations

import re
import shutil
import subprocess
from typing import Any

import pytest
import yaml

from rillfold.cli import VERBS
from rillfold.embedded import kafka, state
from rillfold.processes import WORKERS
from rillfold.settings import PREFIX, Settings
from tests.support.up import ROOT

FILE = ROOT / "docker-compose.yml"
SERVICES: dict[str, Any] = yaml.safe_load(FILE.read_text())["services"]
OURS = [name for name, service in SERVICES.items() if "build" in service]
THEIRS = [name for name in SERVICES if name not in OURS]


def test_the_broker_has_the_settings_of_the_embedded_one() -> None:
    given = SERVICES["kafka"]["environment"]
    wanted = {"KAFKA_" + key.upper().replace(".", "_"): value for key, value in kafka.BROKER.items()}
    assert {name: given.get(name) for name in wanted} == wanted
    assert given["KAFKA_HEAP_OPTS"] == f"-Xmx{kafka.HEAP}"


def test_the_broker_and_the_database_are_the_versions_of_the_embedded_ones() -> None:
    locked = re.search(r"org\.apache\.kafka:kafka_2\.13:(\S+)", (ROOT / "rillfold/embedded/jars.lock").read_text())
    assert locked is not None
    assert SERVICES["kafka"]["image"] == f"apache/kafka:{locked.group(1)}"
    assert SERVICES["postgres"]["image"].startswith("postgres:18.")


@pytest.mark.parametrize("name", THEIRS)
def test_an_image_is_pinned_and_its_health_is_checked(name: str) -> None:
    assert re.fullmatch(r"[a-z/]+:\d+(\.\d+)+", SERVICES[name]["image"])
    assert SERVICES[name]["healthcheck"]["test"]


@pytest.mark.parametrize("name", list(SERVICES))
def test_a_service_waits_only_for_what_is_there_and_says_it_is_ready(name: str) -> None:
    for other, how in SERVICES[name].get("depends_on", {}).items():
        wanted = "healthcheck" if how["condition"] == "service_healthy" else "command"
        assert wanted in SERVICES[other]


@pytest.mark.parametrize("name", list(SERVICES))
def test_ports_are_open_to_this_machine_only(name: str) -> None:
    assert all(port.startswith("127.0.0.1:") for port in SERVICES[name].get("ports", []))


@pytest.mark.parametrize("name", OURS)
def test_a_service_runs_a_verb_that_exists(name: str) -> None:
    verb, *rest = SERVICES[name]["command"]
    assert verb in VERBS
    assert verb != "worker" or rest[0] in WORKERS


@pytest.mark.parametrize("name", OURS)
def test_a_service_sets_only_settings_that_exist(name: str) -> None:
    fields = {PREFIX + field.upper() for field in Settings.__struct_fields__}
    assert set(SERVICES[name]["environment"]) <= fields


def test_gpu_workers_start_only_with_the_gpu_profile() -> None:
    gpu = [name for name in OURS if SERVICES[name].get("profiles") == ["gpu"]]
    assert gpu == ["train", "serve"]
    for name in gpu:
        assert SERVICES[name]["deploy"]["resources"]["reservations"]["devices"][0]["capabilities"] == ["gpu"]


def test_each_worker_has_a_service_and_who_reacts_starts_only_with_the_app_profile() -> None:
    assert {SERVICES[name]["command"][1] for name in OURS if SERVICES[name]["command"][0] == "worker"} == set(WORKERS)
    assert [name for name in OURS if SERVICES[name].get("profiles") == ["app"]] == ["react"]
    assert all("RILLFOLD_APP" in SERVICES[name]["environment"] for name in OURS), "all have to know its events"


def test_the_provider_compose_finds_the_ports_of_the_file() -> None:
    assert f"{state.COMPOSE.bootstrap_servers}:9092" in SERVICES["kafka"]["ports"]
    assert "127.0.0.1:5432:5432" in SERVICES["postgres"]["ports"]
    assert state.COMPOSE.postgres_dsn == "postgresql://postgres@127.0.0.1:5432/postgres"


def test_docker_compose_itself_accepts_the_file() -> None:
    if not shutil.which("docker") or subprocess.run(["docker", "compose", "version"], capture_output=True).returncode:
        pytest.skip("no docker compose on this machine")
    done = subprocess.run(["docker", "compose", "--profile", "gpu", "-f", str(FILE), "config", "-q"], text=True)
    assert done.returncode == 0
