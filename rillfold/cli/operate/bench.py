"""`rillfold bench`: runs one of the checkout's benchmarks as a child process."""

import subprocess
import sys
from pathlib import Path

import click

from rillfold.cli.terminal.answers import as_json
from schemas.errors import Stop
from schemas.near import meant

CHECKOUT = Path(__file__).parents[3]
BENCHES = (
    *("codec", "produce", "fold", "restore", "query", "scale", "memory", "sink", "app"),
    *("train", "serve", "export", "evaluator"),
)


@click.command(context_settings={"ignore_unknown_options": True})
@click.argument("name")
@click.argument("options", nargs=-1, metavar="[ITS OPTIONS]", type=click.UNPROCESSED)
@as_json()
def bench(name: str, options: tuple[str, ...], as_json: bool) -> None:
    """Measure one part against its peers, in turns, by medians; the ratio is ours to theirs.

    ITS OPTIONS are the benchmark's own, such as --runs 9; `serve --only peft,flat_32` takes some of its figures.
    """
    if name not in available():
        guess, there = meant(name, available()), ", ".join(available())
        raise Stop(f"No benchmark {name!r} in {CHECKOUT / 'bench'}.{guess} Take one of {there}.")
    command = [sys.executable, "-m", f"bench.{name}", *options, *(["--json"] if as_json else [])]
    sys.exit(subprocess.run(command, cwd=CHECKOUT, check=False).returncode)


def available() -> list[str]:
    """The benchmarks that are here: a wheel has none, a checkout all."""
    return [name for name in BENCHES if _is_here(CHECKOUT / "bench" / name)] or ["(none: use a checkout)"]


def _is_here(place: Path) -> bool:
    return place.with_suffix(".py").is_file() or (place / "__main__.py").is_file()
