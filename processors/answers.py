"""What a model's text means: an answer, calls of tools, or a failed call. Serving, evaluation and jobs agree on it."""

import json
from typing import Any, NamedTuple

from schemas.company import ToolUse
from schemas.words import JSON, LABEL, fits

CALL, CALL_END = "<tool_call>", "</tool_call>"
END_OF_TURN = "<|im_end|>"


class Spoken(NamedTuple):
    """The model spoke."""

    text: str


class ToolCalls(NamedTuple):
    """The model asks for tools; `text` is what it said before."""

    calls: tuple[ToolUse, ...]
    text: str


class Malformed(NamedTuple):
    """The model meant a call and failed to write one."""

    text: str
    reason: str


def parse(text: str) -> Spoken | ToolCalls | Malformed:
    """What a model's text means. Never guesses: a call that is not exactly one is malformed, with the reason."""
    text = text.removesuffix(END_OF_TURN).strip()
    before, *blocks = text.split(CALL)
    if not blocks:
        return Malformed(text, "a call ends that never began") if CALL_END in text else Spoken(text)
    calls: list[ToolUse] = []
    rest = text[len(before) :]
    while rest:
        try:
            call, rest = _one_call(rest)
        except (ValueError, RecursionError) as error:
            return Malformed(text, str(error))
        calls.append(call)
    return ToolCalls(tuple(calls), before.strip())


def _one_call(text: str) -> tuple[ToolUse, str]:
    """The first call of `text`, and what follows it."""
    if not text.startswith(CALL):
        raise ValueError(f"text between calls: {text[:40]!r}")
    inside = text.removeprefix(CALL).lstrip()
    value, stop = _STRICT.raw_decode(inside)
    after = inside[stop:].lstrip()
    if not after.startswith(CALL_END):
        raise ValueError(f"no {CALL_END} after the call")
    if not isinstance(value, dict) or set(value) != {"name", "arguments"}:
        raise ValueError("a call has a name and arguments, nothing else")
    if not isinstance(value["name"], str) or not isinstance(value["arguments"], dict):
        raise ValueError("the name is text and the arguments are an object")
    form: Any = {"sort_keys": True, "separators": (",", ":"), "ensure_ascii": False, "allow_nan": False}
    arguments = json.dumps(value["arguments"], **form)
    if not (fits(LABEL, value["name"]) and fits(JSON, arguments)):
        raise ValueError(f"the name of a tool is {LABEL.says}, and its arguments are {JSON.says}")
    return ToolUse(name=value["name"], arguments=arguments), after.removeprefix(CALL_END).lstrip()


def _unique(pairs: list[tuple[str, object]]) -> dict[str, object]:
    if len(dict(pairs)) != len(pairs):
        raise ValueError("a key stands twice")
    return dict(pairs)


def _no_constant(name: str) -> object:
    raise ValueError(f"{name} is no JSON")


_STRICT = json.JSONDecoder(object_pairs_hook=_unique, parse_constant=_no_constant)
