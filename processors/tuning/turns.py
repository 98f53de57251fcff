"""Messages of a line, as OpenAI's clients write them, to those of an event. What no model can be shown is refused."""

from typing import Any

from processors.dataset.turns import TURNS
from processors.exact_json import as_written
from schemas.company import Message, ToolUse
from schemas.words import DOCUMENT, LABEL, Word, fits

ROLES = {"system": "system", "developer": "system", "user": "user", "assistant": "assistant", "tool": "tool"}
TURN_NAMES = frozenset({"role", "content", "name", "tool_calls", "tool_call_id", "weight", "refusal"})
MOST_CALLS = 128
SHOWN = 60


class BadLine(Exception):
    """What is wrong with a line: a reason for machines, and where it stands in it with the remedy."""

    def __init__(self, reason: str, where: str, told: str) -> None:
        super().__init__(f"{where}: {told}" if where else told)
        self.reason = reason


def shown(word: object) -> str:
    """Of what somebody else wrote, as much as helps to find it."""
    text = repr(word)
    return text if len(text) <= SHOWN else f"{text[:SHOWN]}\u2026"


def named(given: object, where: str, known: frozenset[str]) -> dict[str, Any]:
    """An object with no name that nobody reads: it would be lost unseen."""
    if not isinstance(given, dict):
        raise BadLine("no_object", where, "a JSON object is needed here.")
    for name in given:
        if name not in known:
            told = f"{shown(name)} is no field that is known here; there are {', '.join(sorted(known))}."
            raise BadLine("unknown_field", where, told)
    return given


def offered(given: object, where: str) -> frozenset[str] | None:
    """The names of a line's tools; None where it says nothing of tools."""
    if given is None:
        return None
    if not isinstance(given, list):
        raise BadLine("bad_tools", where, "tools are a list of functions.")
    names = [each.get("function", {}).get("name") if _is_function(each) else None for each in given]
    for n, name in enumerate(names):
        if not isinstance(name, str) or not fits(LABEL, name):
            told = '{"type": "function", "function": {"name": ..., "parameters": ...}} is needed.'
            raise BadLine("bad_tools", f"{where}[{n}]", told)
    return frozenset(name for name in names if name)


class LineTurns:
    """Reads the messages of one line in their order: a tool's answer belongs to a call before it."""

    def __init__(self, tools: frozenset[str] | None) -> None:
        self._tools = tools
        self._called: dict[str, str] = {}

    def read(self, given: object, where: str, first: int = 0) -> tuple[Message, ...]:
        if not isinstance(given, list) or not given:
            raise BadLine("no_messages", where, "a list of messages is needed here.")
        if len(given) > TURNS:
            raise BadLine("too_many_messages", where, f"{len(given)} messages; at most {TURNS} are learned from.")
        return tuple(self._turn(each, f"{where}[{n}]", first + n) for n, each in enumerate(given))

    def _turn(self, given: object, where: str, turn: int) -> Message:
        fields = named(given, where, TURN_NAMES)
        role = ROLES.get(written) if isinstance(written := fields.get("role"), str) else None
        if role is None:
            told = f"the role {shown(written)} is none of {', '.join(ROLES)}."
            raise BadLine("unknown_role", where, told)
        if role == "system" and turn:
            raise BadLine("late_system", where, "a system message stands first, or nowhere.")
        _weight(fields, where)
        calls = self._calls(fields.get("tool_calls"), f"{where}.tool_calls", role)
        content = _content(fields.get("content"), f"{where}.content", or_nothing=role == "assistant")
        if role == "assistant" and not content and not calls:
            raise BadLine("empty_answer", where, "an answer has content, tool_calls or both.")
        return Message(role=role, content=content, tool_calls=calls, name=self._name(fields, where, role))

    def _calls(self, given: object, where: str, role: str) -> tuple[ToolUse, ...]:
        if given is None or given == []:
            return ()
        if role != "assistant":
            raise BadLine("misplaced_calls", where, f"only an assistant calls tools, no {role}.")
        if not isinstance(given, list) or len(given) > MOST_CALLS:
            raise BadLine("bad_calls", where, f"a list of at most {MOST_CALLS} calls is needed.")
        return tuple(self._call(each, f"{where}[{n}]") for n, each in enumerate(given))

    def _call(self, given: object, where: str) -> ToolUse:
        function = given.get("function") if isinstance(given, dict) and _is_function(given) else None
        if not isinstance(function, dict) or not isinstance(given, dict):
            told = '{"id": ..., "type": "function", "function": {"name": ..., "arguments": ...}} is needed.'
            raise BadLine("bad_calls", where, told)
        name = _word(function.get("name"), f"{where}.function.name", LABEL)
        if self._tools is not None and name not in self._tools:
            raise BadLine("unknown_tool", where, f"{shown(name)} is none of the line's tools.")
        if given.get("id") is not None:
            self._called[_word(given["id"], f"{where}.id", LABEL)] = name
        return ToolUse(name=name, arguments=_arguments(function.get("arguments"), f"{where}.function.arguments"))

    def _name(self, fields: dict[str, Any], where: str, role: str) -> str | None:
        """A tool's answer is told with the tool's name, as it is when somebody asks."""
        if role != "tool":
            return None if fields.get("name") is None else _word(fields["name"], f"{where}.name", LABEL)
        call = fields.get("tool_call_id")
        if not isinstance(call, str) or call not in self._called:
            told = f"tool_call_id {shown(call)} is the id of no call before it."
            raise BadLine("unknown_call", where, told)
        return self._called[call]


def _is_function(given: object) -> bool:
    return isinstance(given, dict) and given.get("type") == "function" and isinstance(given.get("function"), dict)


def _weight(fields: dict[str, Any], where: str) -> None:
    if fields.get("refusal") is not None:
        raise BadLine("refusal", where, "refusals are not told from other answers here: write it as content.")
    if fields.get("weight") not in (None, 1):
        told = "every answer of a conversation is learned from here: leave weight out, and what shall not be learned."
        raise BadLine("bad_weight", where, told)


def _content(given: object, where: str, or_nothing: bool) -> str:
    if given is None and or_nothing:
        return ""
    parts = given if isinstance(given, list) else [{"type": "text", "text": given}]
    texts = [each.get("text") for each in parts if isinstance(each, dict) and each.get("type") == "text"]
    if len(texts) < len(parts) or not all(isinstance(text, str) for text in texts):
        raise BadLine("bad_content", where, "text is needed here, or a list of parts of type text.")
    return _word("".join(map(str, texts)), where, DOCUMENT)


def _arguments(given: object, where: str) -> str:
    if not isinstance(given, str):
        raise BadLine("bad_arguments", where, "arguments are JSON text, in quotes, as the API answers them.")
    try:
        return as_written(given)
    except (ValueError, OverflowError, RecursionError) as error:
        raise BadLine("bad_arguments", where, f"no JSON of one object ({str(error)[:SHOWN]}).") from None


def _word(given: object, where: str, word: Word) -> str:
    if not isinstance(given, str) or not fits(word, given):
        says = "text of whole characters" if word is DOCUMENT else word.says
        raise BadLine("bad_text", where, f"{says}, not {shown(given)}.")
    return given
