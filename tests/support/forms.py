"""Ways through a form: a given one, said token by token, and any."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from random import Random
from typing import Any

import numpy as np

from gpu_workers.serve.forms.form import Form

LONGEST = 300


def offering(**parameters: Any) -> str:
    tools = [{"type": "function", "function": {"name": name, "parameters": it}} for name, it in parameters.items()]
    return json.dumps(tools)


def fields(**properties: Any) -> dict[str, Any]:
    return {"type": "object", "properties": properties, "required": sorted(properties), "additionalProperties": False}


def follow(form: Form, ids: Sequence[int]) -> int:
    """Says these tokens, forced ones without asking. How many were asked for; an error where one may not come."""
    said = asked = 0
    while not form.ended:
        forced = form.forced()
        assert forced == list(ids[said : said + len(forced)])
        if not forced:
            assert may_come(form, ids[said])
            forced = [ids[said]]
            asked += 1
        for token in forced:
            form.take(token)
        said += len(forced)
    assert said == len(ids)
    return asked


def may_come(form: Form, token: int) -> bool:
    words = form.allowed()
    return bool(words[token // 32] >> (token % 32) & 1)


def wander(form: Form, dice: Random) -> Iterator[tuple[list[int], bool]]:
    """Any way that the form allows, all tokens alike likely: pieces, and whether they were forced."""
    for _ in range(LONGEST):
        if form.ended:
            return
        forced = form.forced()
        bits = np.unpackbits(form.allowed().view(np.uint8), bitorder="little")
        piece = forced or [int(dice.choice(np.flatnonzero(bits)))]
        for token in piece:
            form.take(token)
        yield piece, bool(forced)
