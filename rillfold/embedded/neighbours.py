"""The workers of this data folder, as they answer now. Each writes where its listener is to `run/NAME.json`."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

import httpx
import msgspec
from prometheus_client.parser import text_string_to_metric_families

ANSWER_SECONDS = 3.0
MOST = 100
"""So many are asked."""
HTTP_OK = 200


class Neighbour(NamedTuple):
    """A worker that was started here and has not ended in order."""

    name: str
    url: str
    answers: bool = False
    ready: bool = False
    why: str = ""
    """Why it is not ready."""
    behind: int = 0
    """Offsets, of all its partitions."""
    stalls: int = 0
    """Since its process began."""


async def neighbours(data_dir: Path) -> list[Neighbour]:
    """By name. Who was killed is among them, and does not answer."""
    files = await asyncio.to_thread(lambda: sorted((data_dir / "run").glob("*.json"))[:MOST])
    told = [(file.stem, url) for file in files if (url := _url(file)) is not None]
    async with httpx.AsyncClient(timeout=ANSWER_SECONDS, trust_env=False) as http:
        return await asyncio.gather(*(_asked(http, name, url) for name, url in told))


def _url(file: Path) -> str | None:
    """None: it has ended since, or is no file of a worker's."""
    try:
        return msgspec.json.decode(file.read_bytes(), type=dict[str, str]).get("url")
    except (OSError, msgspec.DecodeError):
        return None


async def _asked(http: httpx.AsyncClient, name: str, url: str) -> Neighbour:
    found = Neighbour(name, url)
    try:
        ready = await http.get(f"{url}/ready")
        why = msgspec.json.decode(ready.content, type=dict[str, object]).get("why") or ""
        found = found._replace(answers=True, ready=ready.status_code == HTTP_OK, why=str(why))
        figures = list(text_string_to_metric_families((await http.get(f"{url}/metrics")).text))
    except (httpx.HTTPError, httpx.InvalidURL, msgspec.DecodeError, ValueError):
        return found
    samples = [sample for family in figures for sample in family.samples]
    behind = _sum(sample.value for sample in samples if sample.name == "rillfold_lag")
    stalls = _sum(sample.value for sample in samples if sample.name == "rillfold_stalls_total")
    return found._replace(behind=behind, stalls=stalls)


def _sum(values: Iterable[float]) -> int:
    return int(sum(values))
