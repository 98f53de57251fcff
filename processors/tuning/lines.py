"""Lines of a tuning file, one after the other, to what they teach. The first that is wrong refuses the file."""

from collections.abc import Iterable, Iterator
from hashlib import sha256
from typing import Any, NamedTuple

from processors.dataset.turns import canonical
from processors.exact_json import exact
from processors.tuning.turns import BadLine, LineTurns, named, offered, shown
from schemas.company import Message
from schemas.errors import Poison
from schemas.words import DEEPEST, shallow

LINE_BYTES = 512 << 10
MOST_LINES = 50_000
SUPERVISED, DPO = "supervised", "dpo"
OF_SUPERVISED = frozenset({"messages", "tools", "parallel_tool_calls"})
OF_DPO = frozenset({"input", "preferred_output", "non_preferred_output"})
BOM = b"\xef\xbb\xbf"


class FileRefused(Poison):
    """A file of which nothing is kept. `line` from 1; None: the file as a whole."""

    def __init__(self, reason: str, told: str, line: int | None = None) -> None:
        super().__init__(told if line is None else f"line {line}: {told}")
        self.reason, self.line = reason, line


class Taught(NamedTuple):
    """What one line teaches: a conversation, and for dpo the better one of its last answer."""

    line: int
    messages: tuple[Message, ...]
    preferred: Message | None = None

    @property
    def method(self) -> str:
        return SUPERVISED if self.preferred is None else DPO


def taught(lines: Iterable[bytes]) -> Iterator[Taught]:
    """`lines` with their ends, cut after `LINE_BYTES`. Raises `FileRefused` at the first that is wrong."""
    first: Taught | None = None
    pairs = _Pairs()
    for number, raw in enumerate(lines, 1):
        try:
            one = _read(raw, number)
            if one is None:
                continue
            first = first or one
            _of_one_method(one, first)
            pairs.take(one)
        except BadLine as wrong:
            raise FileRefused(wrong.reason, str(wrong), number) from None
        yield one
    if first is None:
        raise FileRefused("empty_file", "the file holds no line: write one JSON object a line.")


def _of_one_method(one: Taught, first: Taught) -> None:
    if one.method != first.method:
        told = f"it is for {one.method}, and line {first.line} for {first.method}: send a file for each."
        raise BadLine("mixed_methods", "", told)


def _read(raw: bytes, number: int) -> Taught | None:
    """None for an empty line, which counts among the others."""
    if number > MOST_LINES:
        raise BadLine("too_many_lines", "", f"a file holds at most {MOST_LINES} lines: send several files.")
    text = _text(raw, number)
    if not text:
        return None
    given = _json(text)
    if isinstance(given, list):
        raise BadLine("array", "", "a JSON array; a file has one object a line (JSON Lines), and no brackets around.")
    if not isinstance(given, dict):
        raise BadLine("no_object", "", "no JSON object: each line is one.")
    for name in given:
        if name in ("company", "company_id"):
            told = f"{name!r}: whose a file is, the key says by which it is sent. Leave it out."
            raise BadLine("company_named", "", told)
    if OF_DPO & given.keys():
        return _pair(given, number)
    fields = named(given, "", OF_SUPERVISED)
    messages = _conversation(fields, "messages")
    if messages[-1].role != "assistant":
        told = "the last message is no answer of the assistant: there is nothing to learn from."
        raise BadLine("no_answer", "messages", told)
    return Taught(number, messages)


def _text(raw: bytes, number: int) -> str:
    if len(raw.rstrip(b"\r\n")) > LINE_BYTES:
        raise BadLine("too_long", "", f"more than {LINE_BYTES} bytes: no event holds it. Cut the conversation.")
    if raw.startswith(BOM) and number == 1:
        raise BadLine("bom", "", "the file begins with a byte-order mark: save it as UTF-8 without one.")
    try:
        return raw.decode().strip(" \t\r\n")
    except UnicodeDecodeError as error:
        raise BadLine("not_utf8", "", f"no UTF-8 at byte {error.start}: save the file as UTF-8.") from None


def _json(text: str) -> Any:
    if not shallow(text):
        raise BadLine("too_deep", "", f"brackets stand more than {DEEPEST} deep.")
    try:
        return exact(text)
    except (ValueError, RecursionError) as error:
        raise BadLine("invalid_json", "", f"no JSON that everybody reads alike: {str(error)[:120]}.") from None


def _conversation(fields: dict[str, Any], name: str) -> tuple[Message, ...]:
    if fields.get("parallel_tool_calls") not in (None, True, False):
        raise BadLine("bad_value", "parallel_tool_calls", "true or false is needed.")
    messages = LineTurns(offered(fields.get("tools"), "tools")).read(fields.get("messages"), name)
    return _asked(messages, name)


def _asked(messages: tuple[Message, ...], where: str) -> tuple[Message, ...]:
    """What is held out is told by the question; an answer to nobody is none."""
    before = [message.role for message in messages]
    if "user" not in before or ("assistant" in before and before.index("assistant") < before.index("user")):
        raise BadLine("no_question", where, "a user's message comes before the first answer.")
    return messages


def _pair(given: dict[str, Any], number: int) -> Taught:
    if OF_SUPERVISED & given.keys():
        told = "fields of supervised lines (messages) beside those of dpo (input): one line teaches one way."
        raise BadLine("mixed_methods", "", told)
    named(given, "", OF_DPO)
    if missing := [name for name in sorted(OF_DPO) if given.get(name) is None]:
        raise BadLine("missing_field", "", f"{missing[0]} is missing: a dpo line has {', '.join(sorted(OF_DPO))}.")
    fields = named(given["input"], "input", OF_SUPERVISED)
    tools = offered(fields.get("tools"), "input.tools")
    reader = LineTurns(tools)
    asked = _asked(reader.read(fields.get("messages"), "input.messages"), "input.messages")
    if asked[-1].role == "assistant":
        raise BadLine("bad_input", "input.messages", "it ends with an answer: the two answers come after a question.")
    better, worse = (
        _one_answer(reader.read(given[name], name, len(asked)), name)
        for name in ("preferred_output", "non_preferred_output")
    )
    if better == worse:
        raise BadLine("same_answers", "", "preferred_output and non_preferred_output are the same.")
    return Taught(number, (*asked, worse), better)


def _one_answer(messages: tuple[Message, ...], where: str) -> Message:
    if len(messages) != 1 or messages[0].role != "assistant":
        raise BadLine("bad_output", where, f"one message of the assistant is needed, not {len(messages)} messages.")
    return messages[0]


class _Pairs:
    """An answer has one better one: of two, the log's last word would win, and a line be lost unseen."""

    def __init__(self) -> None:
        self._seen: dict[bytes, tuple[bytes, int]] = {}

    def take(self, one: Taught) -> None:
        if one.preferred is None:
            return
        worse = sha256(b"\0".join(map(canonical, one.messages))).digest()
        better = sha256(canonical(one.preferred)).digest()
        before, line = self._seen.setdefault(worse, (better, one.line))
        if before != better:
            told = f"line {line} has the same input and non_preferred_output, and prefers another answer to it."
            raise BadLine("two_preferred", "", told)


def purpose_refused(purpose: object) -> FileRefused | None:
    if purpose == "fine-tune":
        return None
    return FileRefused("bad_purpose", f"purpose is fine-tune here, not {shown(purpose)}.")
