"""`rillfold bench`: runs one of the checkout's benchmarks as a child process."""

import subprocess
import sys
from pathlib import Path

import click

from rillfold.cli.terminal.answers import as_json
from schemas.errors import Stop

CHECKOUT = Path(__file__).parents[3]
BENCHES = ("codec", "produce", "fold", "restore", "query", "scale", "memory", "sink", "train", "serve")


@click.command()
@click.argument("name")
@as_json()
def bench(name: str, as_json: bool) -> None:
    """Measure one part against its peers, in turns, by medians; the ratio is ours to theirs."""
    if not (CHECKOUT / "bench" / f"{name}.py").is_file() or name not in BENCHES:
        raise Stop(f"No benchmark {name!r} in {CHECKOUT / 'bench'}: take one of {', '.join(available())}.")
    command = [sys.executable, "-m", f"bench.{name}", *(["--json"] if as_json else [])]
    sys.exit(subprocess.run(command, cwd=CHECKOUT, check=False).returncode)


def available() -> list[str]:
    """The benchmarks that are here: a wheel has none, a checkout all."""
    return [name for name in BENCHES if (CHECKOUT / "bench" / f"{name}.py").is_file()] or ["(none: use a checkout)"]
