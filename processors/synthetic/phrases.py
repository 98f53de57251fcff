"""How people ask for calls, by templates: orders, questions and what is told around them, in many orders."""

from collections.abc import Collection, Sequence
from typing import NamedTuple

from processors.synthetic.definition import ToolDefinition
from processors.synthetic.lots import Lots
from processors.synthetic.saying import label_of, said, text_has, unit_of, wish_of
from processors.synthetic.values import Json, leaves

PLAIN = ("{Wish}: {pairs}.", "Please {wish}, {pairs}.", "Can you {wish}? {Pairs}.", "{Wish}. {Pairs}.")
RICH = (
    *PLAIN,
    "Please {wish}: {pairs}.",
    "{Wish} for me, please. {Pairs}.",
    "{Wish} now, {pairs}.",
    "Could you {wish}: {pairs}?",
    "Would you {wish}, please? {Pairs}.",
    "May I ask you to {wish}: {pairs}?",
    "I would like you to {wish}. {Pairs}.",
    "We need to {wish}. {Pairs}.",
    "I need you to {wish}, please. {Pairs}.",
    "My colleague asked me to {wish}: {pairs}.",
    "{Pairs}. Please {wish}.",
    "{Pairs}: {wish}, please.",
    "It is urgent: {wish}, {pairs}.",
    "There is a customer on the phone who wants us to {wish}. {Pairs}.",
    "Hello, can somebody {wish}? {Pairs}.",
)
STYLES = ("{label} {value}", "{label}: {value}", "the {label} is {value}", "{value} as {label}", "{label} = {value}")
BOTH = (" And also: ", " Besides that: ", " At the same time: ", " Then, as a second thing: ")
FED = (
    "{one} Then {wish} with the {label} that you get{rest}.",
    "{one} When you have it, {wish} with its {label}{rest}.",
    "{one} After that {wish}, with the {label} from before{rest}.",
)
WHICH = "What is the {label}?"
GIVEN = ("{value}.", "The {label} is {value}.", "It is {value}.", "{value}, please.", "Take {value}.")
FROM_EXAMPLE = 0.4
"""Share of requests that are said as an example says it, where there is one."""
LONG = 8
"""Words of a description, at most, that stands for a wish."""


class Frame(NamedTuple):
    """An example's words with blanks: `{0}` is the first of `names`."""

    text: str
    names: tuple[str, ...]


def asked(tool: ToolDefinition, arguments: Json, lots: Lots, temperature: float, unsaid: Collection[str] = ()) -> str:
    """A request that names every argument, less those that are `unsaid`."""
    if not unsaid and (frames := _fitting(tool, arguments)) and lots.share(FROM_EXAMPLE):
        return _filled(lots.one(frames), tool, arguments)
    form = lots.one(RICH if lots.share(temperature) else PLAIN)
    wish, pairs = wish_in_words(tool, lots), _joined(told(tool, arguments, lots, unsaid), lots)
    if not pairs:
        return lots.one(("Please {}.", "Can you {}?", "I need you to {}.", "Would you {}, please?")).format(wish)
    return form.format(wish=wish, Wish=_capital(wish), pairs=pairs, Pairs=_capital(pairs))


def told(tool: ToolDefinition, arguments: Json, lots: Lots, unsaid: Collection[str] = ()) -> list[str]:
    """Each value under its name, in any order."""
    style = lots.one(STYLES)
    shown = {name: value for name, value in arguments.items() if name not in unsaid}
    return lots.mixed([_pair(name, value, schema, style) for name, value, schema in leaves(shown, tool.parameters)])


def value_in_words(name: str, value: object, schema: Json) -> str:
    listed = "enum" in schema or "enum" in schema.get("items", {})
    return f"{said(value, listed)} {unit_of(name)}".strip() if isinstance(value, int | float) else said(value, listed)


def wish_in_words(tool: ToolDefinition, lots: Lots) -> str:
    """By the tool's name, or by its description where that is short."""
    described = tool.description.split(". ")[0].strip().rstrip(".")
    wishes = [wish_of(tool.name)]
    if 1 < len(described.split()) <= LONG and "{" not in described:
        wishes.append(described[0].lower() + described[1:])
    return lots.one(wishes)


def result_in_words(result: object, tool: ToolDefinition) -> str:
    """What is told of it when all is done."""
    pairs = [
        (name, value) for name, value, _ in leaves(result, tool.returns) if name and not isinstance(value, bool | None)
    ]
    if not pairs:
        return "Done." if isinstance(result, dict) else f"Done: {said(result)}."
    return " ".join(["Done.", *(f"The {label_of(name)} is {said(value)}." for name, value in pairs[:3])])


def _pair(name: str, value: object, schema: Json, style: str) -> str:
    label = label_of(name)
    if isinstance(value, bool):
        return f"with {label}" if value else f"without {label}"
    return style.format(label=label, value=value_in_words(name, value, schema))


def _joined(pairs: Sequence[str], lots: Lots) -> str:
    if len(pairs) < 2:
        return "".join(pairs)
    return lots.one((", ", ", ", " and ")).join(pairs[:-1]) + lots.one((" and ", ", ")) + pairs[-1]


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]


def _fitting(tool: ToolDefinition, arguments: Json) -> list[Frame]:
    names = sorted(name for name, _, _ in leaves(arguments, tool.parameters))
    return [frame for frame in map(_frame, (tool,) * len(tool.examples), tool.examples) if sorted(frame.names) == names]


def _frame(tool: ToolDefinition, example: Json) -> Frame:
    """Without a blank for what the example does not say word for word: then it fits no call."""
    text, names = example["input"].replace("{", "{{").replace("}", "}}"), list[str]()
    for name, value, schema in leaves(example["arguments"], tool.parameters):
        words = said(value, "enum" in schema)
        if not isinstance(value, bool | list | None) and text_has(text, words) and text.count(words) == 1:
            text = text.replace(words, f"{{{len(names)}}}")
            names.append(name)
    return Frame(text, tuple(names))


def _filled(frame: Frame, tool: ToolDefinition, arguments: Json) -> str:
    values = {name: said(value, "enum" in schema) for name, value, schema in leaves(arguments, tool.parameters)}
    return frame.text.format(*(values[name] for name in frame.names))
