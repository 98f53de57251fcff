"""The demo as a stranger starts it, in a folder of its own."""

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil

from tests.support.servers import short_lived_java

GONE_WITHIN = 15.0


@contextmanager
def demo_folder() -> Iterator[Path]:
    """Outside of pytest's own folder, which root's Postgres may not enter."""
    short_lived_java()
    with tempfile.TemporaryDirectory(prefix="rillfold-demo-", ignore_cleanup_errors=True) as path:
        Path(path).chmod(0o755)
        yield Path(path) / "demo"


def begin(folder: Path, out: Path) -> subprocess.Popen[bytes]:
    line = [sys.executable, "-P", "-m", "rillfold", "demo", "--data-dir", str(folder)]
    # Whatever servers a person's environment names, the story has its own. Another lane has the other processor.
    alone = {"RILLFOLD_BOOTSTRAP_SERVERS": "127.0.0.1:1", "RILLFOLD_TRAIN_THREADS": "1", "RILLFOLD_SERVE_THREADS": "1"}
    with out.open("wb") as file:
        return subprocess.Popen(
            line, env=os.environ | alone, stdout=file, stderr=subprocess.STDOUT, start_new_session=True
        )


def on(folder: Path) -> list[psutil.Process]:
    """Every process that was started for this folder."""
    found = []
    for process in psutil.process_iter(["cmdline"]):
        if any(str(folder) in word for word in process.info["cmdline"] or ()):
            found.append(process)
    return found
