"""Runs what stands in the docs: in a folder of its own, and without what a person's environment names."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", flags=re.M | re.S)
ADDRESS = re.compile(r"[\w.-]+:\d{2,5}\b")
# Where downloads are kept: no server is named by these.
KEPT = ("RILLFOLD_CACHE_DIR", "RILLFOLD_MAVEN_REPOSITORY")


def blocks(page: str, *languages: str) -> list[tuple[str, str]]:
    """Language and text of each, in the order of the page."""
    found = BLOCK.findall((ROOT / "docs" / page).read_text())
    assert found, page
    return [(language, text) for language, text in found if language in languages]


def surroundings(**own: str) -> dict[str, str]:
    """Of a process that must reach no servers but those that are given: what a person has set is not passed on."""
    passed = {name: value for name, value in os.environ.items() if not name.startswith("RILLFOLD_") or name in KEPT}
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    return passed | {"PATH": path, "PYTHONPATH": str(ROOT)} | own


def ran(language: str, code: str, cwd: Path, environment: dict[str, str], *own: str) -> str:
    """What it printed. An address in it must be one of our own: whatever runs elsewhere is somebody's."""
    strange = [address for address in ADDRESS.findall(code) if address not in own]
    assert not strange, f"{strange} may be anybody's:\n{code}"
    command = ["bash", "-euo", "pipefail", "-c", code] if language == "sh" else [sys.executable, "-c", code]
    done = subprocess.run(command, env=environment, cwd=cwd, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, f"{code}\n{done.stdout}\n{done.stderr}"
    return done.stdout
