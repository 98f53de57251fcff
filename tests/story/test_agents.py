"""The page about many agents on one model and the example beside it, run as they stand there on a tiny base."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from rillfold.lorax.config import PREFIX, MLConfig
from tests.support.models import ALL, save_adapter
from tests.support.pages import ROOT, blocks, ran, surroundings
from tests.support.workbench import Workbench, bench

__all__ = ["bench"]
pytestmark = pytest.mark.timeout(600)
ROLES = ("ceo", "cfo", "coo")


@pytest.fixture(scope="module")
def environment(bench: Workbench) -> dict[str, str]:
    return surroundings(
        AOS_LORAX_BASE_MODEL=str(bench.base),
        AOS_LORAX_PORT="0",
        RILLFOLD_DATA_DIR=str(bench.root / "data"),
        RILLFOLD_SERVE_THREADS="1",
    )


@pytest.mark.parametrize("n", [0, 1])
def test_the_page_s_code(n: int, bench: Workbench, environment: dict[str, str], tmp_path: Path) -> None:
    for seed, role in enumerate(ROLES, 1):
        save_adapter(bench.model, tmp_path / f"{role}_adapter", seed, r=4, target_modules=ALL)
    code = [text for _, text in blocks("agents.md", "python")]
    assert len(code) == 2
    said = ran("python", code[n].replace("/models/", f"{tmp_path}/"), tmp_path, environment)
    assert "CEO" in said and "CFO" in said


def test_all_variables_stand_on_the_page() -> None:
    page = (ROOT / "docs" / "agents.md").read_text()
    names = {PREFIX + name.upper() for name in MLConfig.__struct_fields__}
    assert set(re.findall(r"AOS_[A-Z_]+", page)) == names
    assert len(names) == 7


def test_the_officers_share_a_batch(environment: dict[str, str], tmp_path: Path) -> None:
    line = [sys.executable, str(ROOT / "examples" / "c_suite.py")]
    done = subprocess.run(line, env=environment, cwd=tmp_path, capture_output=True, text=True, timeout=560)
    assert done.returncode == 0, done.stderr
    spoke = re.search(r"^(\d) of 6 officers spoke at the same time", done.stdout, flags=re.M)
    assert spoke is not None and int(spoke[1]) > 1, done.stdout
    for role in ("CEO", "CFO", "COO", "CTO", "CMO", "CHRO"):
        assert re.search(rf"^{role} +2 requests, \d+ tokens", done.stdout, flags=re.M), done.stdout
