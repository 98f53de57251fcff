"""`make` on a machine that lacks something says so in one line. Row H1. Here the faults are faked, one at a time."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from tests.support.up import ROOT

NOWHERE = "http://127.0.0.1:9"


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """What the set-up reads, in a folder that has no environment yet."""
    for name in ("Makefile", "pyproject.toml", "requirements.lock"):
        shutil.copy(ROOT / name, tmp_path / name)
    shutil.copytree(ROOT / "setup", tmp_path / "setup")
    (tmp_path / "schemas" / "codec").mkdir(parents=True)
    for name in ("native.c", "values.h"):
        shutil.copy(ROOT / "schemas" / "codec" / name, tmp_path / "schemas" / "codec" / name)
    (tmp_path / "fakes").mkdir()
    return tmp_path


def fake(project: Path, name: str, script: str) -> None:
    path = project / "fakes" / name
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)


def _outside_make() -> dict[str, str]:
    """`make test` runs this suite: a make that knows itself to be inside of another one says so in every line."""
    return {name: value for name, value in os.environ.items() if name not in ("MAKELEVEL", "MAKEFLAGS", "MFLAGS")}


def make(project: Path, *words: str, **environment: str) -> tuple[int, list[str]]:
    """Exit status, and what was said except by make itself, and that a long download begins."""
    path = f"{project / 'fakes'}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run(
        ["make", "--no-print-directory", *words],
        cwd=project,
        env=_outside_make() | {"PATH": path, "PYTHON": sys.executable} | environment,
        capture_output=True,
        text=True,
    )
    said = (done.stdout + done.stderr).splitlines()
    return done.returncode, [line for line in said if not line.startswith(("make: ", "setting up "))]


def test_make_alone_lists_the_verbs(project: Path) -> None:
    status, said = make(project)
    assert status == 0
    verbs = ["help", "demo", "test", "check", "up", "bench", "kill", "hostile", "lock"]
    assert [line.split()[1] for line in said] == verbs


def test_a_wrong_python_is_named(project: Path) -> None:
    fake(project, "python3", 'case "$1" in --version) echo Python 3.10.2;; *) exit 1;; esac')
    status, said = make(project, "up", PYTHON="python3")
    assert status != 0
    assert said == ["rillfold: Python 3.10.2 is not one of 3.11, 3.12, 3.13: name another by: make PYTHON=python3.11"]


def test_no_python_is_said(project: Path) -> None:
    status, said = make(project, "up", PYTHON="python-that-is-not-here")
    assert status != 0
    assert said == [
        "rillfold: python-that-is-not-here is not here: install Python 3.11, 3.12 or 3.13, or name one: make PYTHON=..."
    ]


def test_a_python_without_venv_names_the_package(project: Path) -> None:
    fake(project, "python3", 'case "$2" in *ensurepip*) exit 1;; *) exit 0;; esac')
    status, said = make(project, "up", PYTHON="python3")
    assert status != 0
    assert said == ["rillfold: python3 has no venv module: apt install python3-venv (or python3-venv), then try again."]


def test_a_full_disk_is_named(project: Path) -> None:
    fake(project, "df", "echo header; echo /dev/disk 100 100 1048576 99% /")
    status, said = make(project, "up")
    assert status != 0
    assert said == [f"rillfold: only 1 GiB are free at {project}, and the packages need 8: make room."]


def test_no_network_is_one_line(project: Path) -> None:
    fake(project, "df", "echo header; echo /dev/disk 100 100 104857600 1% /")
    status, said = make(project, "up", PIP_INDEX_URL=NOWHERE, PIP_FIND_LINKS="", PIP_CONFIG_FILE=os.devnull)
    assert status != 0
    assert said == [
        "rillfold: the package index cannot be reached: connect this machine to the network once "
        "(details: .venv/setup.log)."
    ]


def test_a_package_that_is_not_the_locked_one_is_refused(project: Path) -> None:
    """An index that offers another file under the name and version that are locked."""
    fake(project, "df", "echo header; echo /dev/disk 100 100 104857600 1% /")
    (version,) = re.findall(r"^uv==([0-9.]+)", (project / "setup" / "uv.txt").read_text())
    offered = another_uv(project / "offered", version)
    said_by_pip = {"PIP_NO_INDEX": "1", "PIP_FIND_LINKS": str(offered), "PIP_CONFIG_FILE": os.devnull}
    status, said = make(project, "up", **said_by_pip)
    assert status != 0
    (line,) = said
    assert line.startswith("rillfold: the installation of uv failed (details: .venv/setup.log): ERROR:")
    assert "DO NOT MATCH THE HASHES" in (project / ".venv" / "setup.log").read_text()
    assert not (project / ".venv" / "setup").exists()


def another_uv(folder: Path, version: str) -> Path:
    """A wheel that pip would install, were it not for the hash."""
    folder.mkdir()
    facts = f"uv-{version}.dist-info"
    with zipfile.ZipFile(folder / f"uv-{version}-py3-none-any.whl", "w") as wheel:
        wheel.writestr("uv.py", "raise SystemExit('not the uv that was locked')\n")
        wheel.writestr(f"{facts}/METADATA", f"Metadata-Version: 2.1\nName: uv\nVersion: {version}\n")
        wheel.writestr(
            f"{facts}/WHEEL", "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        )
        wheel.writestr(f"{facts}/RECORD", "")
    return folder
