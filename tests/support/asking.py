"""What a worker's own listener answers."""

import json
from collections.abc import Callable
from pathlib import Path

import httpx

from tests.support.waiting import until


def asked(data: Path, name: str, path: str, **headers: str) -> httpx.Response | None:
    """None while nobody listens."""
    try:
        url = json.loads((data / "run" / f"{name}.json").read_text())["url"]
        return httpx.get(url + path, headers=headers, trust_env=False)
    except (OSError, httpx.TransportError, json.JSONDecodeError):
        return None


def answered(
    data: Path, name: str, path: str, found: Callable[[httpx.Response], bool], seconds: float = 60
) -> httpx.Response:
    """The first answer that is as it should be."""
    last: list[str] = []

    def look() -> httpx.Response | None:
        answer = asked(data, name, path)
        last[:] = ["nobody listens" if answer is None else answer.text]
        return answer if answer is not None and found(answer) else None

    try:
        answer: httpx.Response = until(f"{path} of {name}", look, seconds)
    except AssertionError as error:
        raise AssertionError(f"{error}: {last[0]}") from None
    return answer
