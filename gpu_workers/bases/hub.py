"""Models that lie in the local cache of a model hub. Nothing is ever fetched."""

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
    """Where the hub's own client keeps what it fetched: it reads the environment for that, we do not."""
    from huggingface_hub import constants  # not before somebody asks: who only reads settings needs none

    return Path(constants.HF_HUB_CACHE)
