"""What was wrong with an answer, in a word, and how near words came to the right ones."""

import json
import re
from collections import Counter
from typing import Literal, NamedTuple

from processors.answers import CALL, Malformed, Spoken, ToolCalls, parse
from schemas.company import Message, ToolUse

Mistake = Literal[
    "wrong tool",
    "wrong argument names",
    "wrong values",
    "missing call",
    "unwanted call",
    "malformed",
    "cut off",
    "extra words",
    "other words",
    "no answer",
]
_WORD = re.compile(r"\w+")


class Judgement(NamedTuple):
    mistake: Mistake | None
    """None: it is right."""

    @property
    def right(self) -> bool:
        return self.mistake is None

    @property
    def malformed(self) -> bool:
        """A call was meant, and none can be read; one that was not given room to end among them."""
        return self.mistake in ("malformed", "cut off")


def classify(expected: Message | None, predicted: str, ended: bool = True) -> Judgement:
    """Exact: the right tools in the right order, with exactly the right arguments, and no words where none are right.

    `expected` None: any words are right, and no call is. `ended`: the model itself stopped; otherwise there was no more
    room. Words against words are equal, or other words: how near they are is `token_f1`.
    """
    meant = parse(predicted)
    if isinstance(meant, Malformed):
        return Judgement("malformed" if ended else "cut off")
    if expected is None:
        return Judgement("unwanted call" if isinstance(meant, ToolCalls) else None)
    if isinstance(meant, Spoken):
        return Judgement(_of_words(expected, meant.text, ended))
    return Judgement(_of_calls(expected, meant))


def _of_words(expected: Message, text: str, ended: bool) -> Mistake | None:
    if expected.tool_calls:
        half_a_call = not ended and bool(text) and CALL.startswith(text)
        return "cut off" if half_a_call else "missing call"
    return None if text == expected.content.strip() else "other words"


def _of_calls(expected: Message, meant: ToolCalls) -> Mistake | None:
    """The first thing that is wrong."""
    wanted, came = expected.tool_calls, meant.calls
    if not wanted or len(came) > len(wanted):
        return "unwanted call"
    if len(came) < len(wanted):
        return "missing call"
    for right, call in zip(wanted, came, strict=True):
        if mistake := _of_call(right, call):
            return mistake
    return "extra words" if meant.text and not expected.content else None


def _of_call(right: ToolUse, call: ToolUse) -> Mistake | None:
    if call.name != right.name:
        return "wrong tool"
    if same_arguments(call.arguments, right.arguments):
        return None
    other_names = set(json.loads(call.arguments)) != set(json.loads(right.arguments))
    return "wrong argument names" if other_names else "wrong values"


def same_arguments(one: str, other: str) -> bool:
    """By what they say: order and blanks are the writer's, while 1, 1.0 and true stay three things."""
    return one == other or _canonical(one) == _canonical(other)


def _canonical(text: str) -> str:
    return json.dumps(json.loads(text), sort_keys=True)


def token_f1(expected: str, predicted: str) -> float:
    """How much of the words of one is in the other, each word as often as it stands there; capitals and marks aside."""
    right, came = (Counter(_WORD.findall(text.lower())) for text in (expected, predicted))
    if not right or not came:
        return float(right == came)
    return 2 * (right & came).total() / (right.total() + came.total())
