"""Programs that no Python package brings: what needs one says so by a mark, and is skipped where it is not installed.

`--every-program`, which continuous integration sets, lets no such skip pass.
"""

from __future__ import annotations

import shutil

import pytest

OPTION = "--every-program"
PACKAGES = {"kcat": "kcat", "curl": "curl"}
"""The programs that a test may need, and the system package that brings each."""


def look(item: pytest.Item) -> None:
    for mark in item.iter_markers("needs"):
        for name in mark.args:
            if shutil.which(name) is None:
                _do_without(name, required=item.config.getoption(OPTION))


def _do_without(name: str, required: bool) -> None:
    package = PACKAGES[name]
    why = f"{name} is not installed: `apt-get install {package}`, or `brew install {package}`"
    if required:
        pytest.fail(f"{why}. {OPTION} lets no test go without.", pytrace=False)
    pytest.skip(why)
