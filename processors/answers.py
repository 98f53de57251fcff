"""What a model's text means: an answer, calls of tools, or a failed call. Serving, evaluation and jobs agree on it."""

import json
from typing import Any, NamedTuple

from schemas.company import Message, ToolUse
from schemas.words import JSON, LABEL, fits

CALL, CALL_END = "<tool_call>", "</tool_call>"
END_OF_TURN = "<|im_end|>"
_CODE = "<|python_tag|>"
"""What a model that writes bare calls may begin one with."""


class CallForm(NamedTuple):
    """How a model writes a call: JSON with a name and, under this key, its arguments, between these."""

    opens: str
    key: str
    closes: str
    between: str
    """Between two calls, and between words and the first."""

    @property
    def bare(self) -> bool:
        """Nothing but JSON: there are no words beside it."""
        return not self.opens


TAGGED = CallForm(f"{CALL}\n", "arguments", f"\n{CALL_END}", "\n")
"""As Qwen writes calls, as the log has them, and as we do where a model has no form of its own."""
BARE = CallForm("", "parameters", "", "; ")
"""As Llama 3 does."""


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


def parse(text: str, form: CallForm = TAGGED) -> Spoken | ToolCalls | Malformed:
    """What a model's text means. Never guesses: a call that is not exactly one is malformed, with the reason.

    Tags mean a call whoever writes them: what goes into the log is read so by everybody.
    """
    text = text.removesuffix(END_OF_TURN).strip()
    if form.bare and begins_bare(text):
        return _all_calls(text, "", text.removeprefix(_CODE).lstrip(), form)
    before, *blocks = text.split(CALL)
    if not blocks:
        return Malformed(text, "a call ends that never began") if CALL_END in text else Spoken(text)
    return _all_calls(text, before.strip(), text[len(before) :], TAGGED)


def begins_bare(text: str) -> bool:
    """Meant as a call without tags, whether or not it is one: an object that begins with one of a call's keys."""
    inside = text.lstrip().removeprefix(_CODE).lstrip()
    key = inside[1:].lstrip() if inside.startswith("{") else ""
    return text.lstrip().startswith(_CODE) or key.startswith(('"name"', f'"{BARE.key}"'))


def may_begin_bare(text: str) -> bool:
    """Of the first letters of an answer: whether it is meant as a bare call, or may yet become one."""
    text = text.lstrip()
    return not text or text.startswith("{") or text.startswith(_CODE) or _CODE.startswith(text)


def body(message: Message, form: CallForm = TAGGED) -> str:
    """What a turn says: its text, then its tool calls. Bare ones stand alone."""
    calls = [write(call, form) for call in message.tool_calls]
    words = [message.content] if message.content and not (form.bare and calls) else []
    return form.between.join(words + calls)


def write(call: ToolUse, form: CallForm = TAGGED) -> str:
    arguments = _json(json.loads(call.arguments))
    return f'{form.opens}{{"name": {_json(call.name)}, "{form.key}": {arguments}}}{form.closes}'


def tagged(text: str, meant: Spoken | ToolCalls | Malformed, form: CallForm) -> str:
    """The text as the log has it, whose readers know one form of calls: what it means stays the same."""
    if isinstance(meant, Spoken) or not (form.bare and begins_bare(text)):
        return text
    if isinstance(meant, Malformed):
        return f"{CALL}\n{_CODE}{text}"  # which no reader takes for a call, whatever the text is
    return body(Message(role="assistant", content=meant.text, tool_calls=meant.calls))


def _json(value: object) -> str:
    """As models' templates write JSON: readable spaces, no escapes for what is not ASCII."""
    return json.dumps(value, ensure_ascii=False)


def _all_calls(text: str, before: str, rest: str, form: CallForm) -> ToolCalls | Malformed:
    calls: list[ToolUse] = []
    while rest:
        try:
            call, rest = _one_call(rest, form)
        except (ValueError, RecursionError) as error:
            return Malformed(text, str(error))
        calls.append(call)
    return ToolCalls(tuple(calls), before) if calls else Malformed(text, "a call begins, and there is none")


def _one_call(text: str, form: CallForm) -> tuple[ToolUse, str]:
    """The first call of `text`, and what follows it."""
    opens, closes, between = (part.strip() for part in (form.opens, form.closes, form.between))
    if not text.startswith(opens):
        raise ValueError(f"text between calls: {text[:40]!r}")
    inside = text.removeprefix(opens).lstrip()
    value, stop = _STRICT.raw_decode(inside)
    after = inside[stop:].lstrip()
    if not after.startswith(closes):
        raise ValueError(f"no {closes} after the call")
    after = after.removeprefix(closes).lstrip()
    if between and after and not after.removeprefix(between).strip():
        raise ValueError("the next call is missing")
    if between and after and not after.startswith(between):
        raise ValueError(f"text after the call: {after[:40]!r}")
    return _call(value, form.key), after.removeprefix(between).lstrip()


def _call(value: Any, key: str) -> ToolUse:
    if not isinstance(value, dict) or set(value) != {"name", key}:
        raise ValueError(f"a call has a name and {key}, nothing else")
    if not isinstance(value["name"], str) or not isinstance(value[key], dict):
        raise ValueError(f"the name is text and the {key} are an object")
    form: Any = {"sort_keys": True, "separators": (",", ":"), "ensure_ascii": False, "allow_nan": False}
    arguments = json.dumps(value[key], **form)
    if not (fits(LABEL, value["name"]) and fits(JSON, arguments)):
        raise ValueError(f"the name of a tool is {LABEL.says}, and its arguments are {JSON.says}")
    return ToolUse(name=value["name"], arguments=arguments)


def _unique(pairs: list[tuple[str, object]]) -> dict[str, object]:
    if len(dict(pairs)) != len(pairs):
        raise ValueError("a key stands twice")
    return dict(pairs)


def _no_constant(name: str) -> object:
    raise ValueError(f"{name} is no JSON")


_STRICT = json.JSONDecoder(object_pairs_hook=_unique, parse_constant=_no_constant)
