"""Models that lie in the local cache of a model hub. Nothing is ever fetched."""

import os
import re
from pathlib import Path

_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*", re.ASCII)


def is_id(word: str) -> bool:
    """`org/name`, as hubs name models."""
    return bool(_ID.fullmatch(word)) and ".." not in word


def cached(id_: str) -> Path | None:
    """The snapshot that `main` points to; None: this machine does not have it."""
    model = cache() / f"models--{id_.replace('/', '--')}"
    try:
        commit = (model / "refs" / "main").read_text().strip()
        found = model / "snapshots" / commit
        return found if re.fullmatch(r"[0-9a-f]{4,64}", commit) and (found / "config.json").is_file() else None
    except (OSError, ValueError):
        return None


def cache() -> Path:
    """Where the hub's own client keeps what it fetched."""
    home = os.environ.get("HF_HOME") or Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache") / "huggingface"
    return Path(os.environ.get("HF_HUB_CACHE") or Path(home) / "hub").expanduser()
