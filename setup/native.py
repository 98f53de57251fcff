"""Builds `schemas.codec.native` where a C compiler and Python's headers are; without them all is read in Python."""

from __future__ import annotations

import shlex
import subprocess
import sys
import sysconfig
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

ROOT = Path(__file__).parents[1]


def build() -> Path | None:
    """The module beside its source, or None. A process that has the old one loaded keeps it."""
    said = sysconfig.get_config_var
    source = ROOT / "schemas" / "codec" / "native.c"
    target = source.with_suffix(said("EXT_SUFFIX"))
    fresh = target.with_suffix(".new")
    link = shlex.split(f"{said('LDSHARED')} -O2 -Wall -Wextra {said('CCSHARED') or ''}")
    try:
        done = subprocess.run([*link, f"-I{sysconfig.get_path('include')}", source, "-o", fresh])
    except OSError as error:
        print(f"rillfold: no C compiler ({error})", file=sys.stderr)
    else:
        if done.returncode == 0:
            return fresh.replace(target)
    print(
        "rillfold: schemas/codec/native.c is not built; events are read in Python, at a sixth of the speed",
        file=sys.stderr,
    )
    target.unlink(missing_ok=True)
    return None


class NativeHook(BuildHookInterface[Any]):
    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        built = build()
        if built is not None and version != "editable":
            build_data.update(pure_python=False, infer_tag=True)
            build_data["artifacts"].append(str(built.relative_to(ROOT)))


if __name__ == "__main__":
    sys.exit(build() is None)
