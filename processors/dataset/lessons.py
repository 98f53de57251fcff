"""Rule 3: rows that hold all they are, and nothing of where they stood."""

from collections.abc import Hashable, Iterator, Mapping, Sequence
from hashlib import sha256

import msgspec

from processors.dataset.marks import Opinion
from processors.dataset.turns import TURNS, Example, canonical, parse_row
from processors.exact_json import as_written
from schemas.company import Message, ToolUse, may_speak


class Lesson(msgspec.Struct, frozen=True, kw_only=True):
    """One answer, what stood before it, and what was said of it. Nothing in it is a place in the log."""

    agent: str
    story: str
    """sha256 of the whole conversation, who held it and the tools that were on offer: all its answers have one."""
    turn: int
    held_out: bool
    """Never trained on; measured on."""
    prompt: tuple[Message, ...]
    answer: Message
    """The right one, where somebody corrected it."""
    rejected: Message | None = None
    """What was said, where `answer` is a correction."""
    good: bool | None = None
    """None: nobody judged it."""
    tools: str | None = None
    """On offer at that moment, as a job carries them; None: none."""


Row = Example | Lesson


class Talk(msgspec.Struct, frozen=True, kw_only=True):
    """A conversation with its agent: what is told once however often it was told."""

    agent: str
    messages: tuple[Message, ...]

    @classmethod
    def of(cls, agent: str, messages: Sequence[Message]) -> "Talk":
        return cls(agent=agent, messages=tuple(in_canonical_form(message) or message for message in messages))


def story_of(content: bytes, tools: str | None) -> str:
    """`content`: the sha256 of a talk."""
    return sha256(content + (tools or "").encode()).hexdigest()


def lessons(
    talk: Talk, tools: str | None, story: str, opinions: Mapping[int, Opinion], held_out: bool
) -> Iterator[Lesson | None]:
    """In the order of its turns. None for each that no model can be shown, or whose prompt it cannot."""
    teachable = True
    for turn, message in enumerate(talk.messages):
        if not (teachable and turn < TURNS and _can_be_shown(message, turn)):
            teachable = False
        if message.role != "assistant" or not turn:
            continue
        opinion = opinions.get(turn, Opinion(None, None, ()))
        answer = message if opinion.correction is None else in_canonical_form(opinion.correction)
        if not teachable or answer is None or answer.role != "assistant":
            yield None
            continue
        yield Lesson(
            agent=talk.agent,
            story=story,
            turn=turn,
            held_out=held_out,
            prompt=talk.messages[:turn],
            answer=answer,
            rejected=message if answer != message else None,
            good=opinion.good,
            tools=tools,
        )


def _can_be_shown(message: Message, turn: int) -> bool:
    return may_speak(message.role, turn) and in_canonical_form(message) is not None


def in_canonical_form(message: Message) -> Message | None:
    """Its calls as everybody would have written them. None where one has no arguments that are one JSON object."""
    if not message.tool_calls:
        return message
    try:
        calls = tuple(ToolUse(name=each.name, arguments=as_written(each.arguments)) for each in message.tool_calls)
    except (ValueError, OverflowError, RecursionError):
        return None
    return msgspec.structs.replace(message, tool_calls=calls)


def was_wrong(row: Row) -> bool:
    """Nobody should learn it, nor be measured by it."""
    return isinstance(row, Lesson) and row.good is False


def conversation_of(row: Row) -> Hashable:
    """All its answers have one."""
    return (row.topic, row.partition, row.offset) if isinstance(row, Example) else row.story


def line_of(row: Row) -> bytes:
    """The same row gives the same bytes everywhere."""
    return canonical(row) + b"\n"


def row_of(line: bytes) -> Row:
    """Of whichever rule: what is canonical begins with `agent` by rule 3, and with `answer` by those before."""
    return msgspec.json.decode(line, type=Lesson) if line.startswith(b'{"agent":') else parse_row(line)
