"""schemathesis over the API's own description: right and wrong requests of every operation, with two keys and none."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Mapping
from contextlib import closing, suppress
from typing import Any

import requests
import schemathesis
from hypothesis import strategies as st
from hypothesis.errors import Unsatisfiable
from schemathesis import Case, GenerationMode

from tests.hostile.checks import Watch, unfit
from tests.hostile.mallory.doors import FEED_SECONDS, READ_BYTES, Answer
from tests.hostile.mallory.generate import drawn
from tests.hostile.stage import Stage

WHO = ("mallory", "acme", None)
AT_ONCE = 6
SECONDS = 45


async def explored(stage: Stage, watch: Watch, count: int, seed: int) -> tuple[Counter[int], list[str]]:
    """How many had which answer, and what was answered wrongly."""
    description = await asyncio.to_thread(_described, stage)
    asked = await asyncio.to_thread(_cases, description, count, seed)
    room, http, statuses = asyncio.Semaphore(AT_ONCE), requests.Session(), Counter[int]()
    http.trust_env = False

    async def one(n: int, case: Case) -> list[str]:
        who = WHO[n % len(WHO)]
        async with room:
            answer = await asyncio.to_thread(_call, http, stage, case, who)
        statuses[answer.status] += 1
        what = f"{case.method} {case.path} by {who or 'nobody'}"
        if who != "acme":
            watch.hear(what, answer)
        if who != "mallory" and stage.hidden.encode() in answer.body:
            return [f"{what} was told what only mallory knows"]
        return [f"{wrong} {case.as_curl_command()[:400]}" for wrong in unfit(what, answer)]

    with http:
        found = await asyncio.gather(*(one(n, case) for n, case in enumerate(asked)))
    return statuses, [wrong for answers in found for wrong in answers]


def _described(stage: Stage) -> Any:
    with closing(requests.get(f"{stage.api}/openapi.json", timeout=SECONDS)) as answer:
        return schemathesis.openapi.from_dict(answer.json())


def _cases(description: Any, count: int, seed: int) -> list[Case]:
    """As many of each operation, half of them against its description. Some have only one form, others make it up."""
    operations = [found.ok() for found in description.get_all_operations()]
    asked: list[Case] = []
    while (missing := count - len(asked)) > 0:
        each, seed = -(-missing // (2 * len(operations))), seed + len(operations)
        for n, operation in enumerate(operations):
            for mode in (GenerationMode.POSITIVE, GenerationMode.NEGATIVE):
                strategy: st.SearchStrategy[Case] = operation.as_strategy(generation_mode=mode)
                with suppress(Unsatisfiable):  # what takes nothing cannot be given anything wrong
                    asked += drawn(strategy.map(_quick), each, seed + n)
    return asked


def _quick(case: Case) -> Case:
    """Nobody is asked to wait for minutes, and no run is begun that would train with the default settings."""
    if isinstance(case.query, Mapping) and "wait" in case.query:
        case.query = {**case.query, "wait": 0.05}
    if case.path.endswith("train-adapter") and isinstance(case.body, dict):
        case.body = {**case.body, "base_model": case.body.get("base_model") or "no-such-base"}
    return case


def _call(http: requests.Session, stage: Stage, case: Case, who: str | None) -> Answer:
    given = case.as_transport_kwargs(base_url=stage.api)
    headers = {name: value for name, value in given.pop("headers").items() if name.lower() != "authorization"}
    if who is not None:
        headers["Authorization"] = f"Bearer {stage.keys[who]}"
    try:
        with closing(http.request(**given, headers=headers, stream=True, timeout=SECONDS)) as answer:
            endless = "event-stream" in answer.headers.get("Content-Type", "")
            body = _beginning(answer) if endless else answer.raw.read(READ_BYTES)
            head = "".join(f"{name}: {value}\r\n" for name, value in answer.headers.items())
            return Answer(answer.status_code, b"\r\n" + head.encode(), body)
    except (requests.exceptions.InvalidHeader, requests.exceptions.InvalidURL, UnicodeError):
        return Answer(0, b"", b"")  # what this client cannot say, the corpus says by hand


def _beginning(answer: requests.Response) -> bytes:
    return next(answer.iter_content(1 << 12), b"") if FEED_SECONDS else b""
