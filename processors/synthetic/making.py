"""One conversation of each kind: what is asked, the right calls, what the tools would answer, and what is said then."""

from collections.abc import Mapping, Sequence
from itertools import permutations
from typing import Literal, NamedTuple, get_args

from processors.parameters import canonical
from processors.synthetic import idle, phrases, vocabulary
from processors.synthetic.definition import ToolDefinition
from processors.synthetic.lots import Lots
from processors.synthetic.saying import label_of, text_has, words_of
from processors.synthetic.simulated import executed
from processors.synthetic.values import MEASURED, Drawing, Json, kind_of
from schemas.company import Message, ToolUse

MadeKind = Literal["single", "parallel", "chained", "irrelevant", "missing"]
KINDS: tuple[MadeKind, ...] = get_args(MadeKind)
FINISHED = 0.4
"""Share of the learned calls that go on to the tool's answer and the last words."""
WISHES = 0.25
"""Share of the irrelevant that wish for something, rather than talk."""


class Made(NamedTuple):
    """A conversation that nobody had."""

    kind: MadeKind
    tools: tuple[str, ...]
    """That are called, or would have been."""
    messages: tuple[Message, ...]
    side: int

    @property
    def question(self) -> str:
        return self.messages[0].content


class Link(NamedTuple):
    """What one tool returns another one takes."""

    first: ToolDefinition
    gives: str
    then: ToolDefinition
    takes: str


class Making:
    """Of one company's tools."""

    def __init__(self, tools: Sequence[ToolDefinition]) -> None:
        self._tools = {tool.name: tool for tool in tools}
        self.links = [link for pair in permutations(tools, 2) for link in _links(*pair)]

    def can(self, kind: MadeKind, tool: ToolDefinition) -> bool:
        """Whether that kind of conversation can begin with the tool."""
        if kind == "missing":
            return bool(_askable(tool))
        return kind != "chained" or any(link.first is tool for link in self.links)

    def made(self, kind: MadeKind, tool: ToolDefinition, lots: Lots, side: int, temperature: float) -> Made:
        match kind:
            case "irrelevant":
                return Made(kind, (), self._irrelevant(lots), side)
            case "single":
                return self._single(tool, lots, side, temperature)
            case "missing":
                return self._missing(tool, lots, side, temperature)
            case "parallel":
                return self._parallel(tool, lots, side, temperature)
        return self._chained(lots.one([link for link in self.links if link.first is tool]), lots, side, temperature)

    def _single(self, tool: ToolDefinition, lots: Lots, side: int, temperature: float) -> Made:
        arguments = _arguments(tool, lots, side)
        text = phrases.asked(tool, arguments, lots, temperature)
        messages = _user(text), _calls((tool, arguments)), *self._ending([(tool, arguments)], lots, side)
        return Made("single", (tool.name,), messages, side)

    def _parallel(self, tool: ToolDefinition, lots: Lots, side: int, temperature: float) -> Made:
        pair = [(each, _arguments(each, lots, side)) for each in (tool, lots.one(list(self._tools.values())))]
        one, other = (phrases.asked(each, arguments, lots, temperature) for each, arguments in pair)
        messages = _user(one + lots.one(phrases.BOTH) + other), _calls(*pair), *self._ending(pair, lots, side)
        return Made("parallel", tuple(each.name for each, _ in pair), messages, side)

    def _missing(self, tool: ToolDefinition, lots: Lots, side: int, temperature: float) -> Made:
        arguments, name = _arguments(tool, lots, side), lots.one(_askable(tool))
        label, schema = label_of(name), tool.parameters["properties"][name]
        value = phrases.value_in_words(name, arguments[name], schema)
        messages = (
            _user(phrases.asked(tool, arguments, lots, temperature, unsaid=(name,))),
            Message(role="assistant", content=phrases.WHICH.format(label=label)),
            _user(lots.one(phrases.GIVEN).format(label=label, value=value)),
            _calls((tool, arguments)),
        )
        return Made("missing", (tool.name,), messages, side)

    def _chained(self, link: Link, lots: Lots, side: int, temperature: float) -> Made:
        first = _arguments(link.first, lots, side)
        result = executed(self._tools, link.first.name, first, side)
        then = _arguments(link.then, lots, side) | {link.takes: result[link.gives]}
        pairs = phrases.told(link.then, then, lots, unsaid=(link.takes,))
        text = lots.one(phrases.FED).format(
            one=phrases.asked(link.first, first, lots, temperature),
            wish=phrases.wish_in_words(link.then, lots),
            label=label_of(link.gives),
            rest="".join(f", {pair}" for pair in pairs),
        )
        messages = (
            _user(text),
            _calls((link.first, first)),
            _result(link.first, result),
            _calls((link.then, then)),
            *self._ending([(link.then, then)], lots, side),
        )
        return Made("chained", (link.first.name, link.then.name), messages, side)

    def _ending(self, called: Sequence[tuple[ToolDefinition, Json]], lots: Lots, side: int) -> tuple[Message, ...]:
        """What is measured ends with the call."""
        if side == MEASURED or not lots.share(FINISHED):
            return ()
        results = [(tool, executed(self._tools, tool.name, arguments, side)) for tool, arguments in called]
        words = " ".join(phrases.result_in_words(result, tool) for tool, result in results)
        return *(_result(tool, result) for tool, result in results), Message(role="assistant", content=words)

    def _irrelevant(self, lots: Lots) -> tuple[Message, ...]:
        while True:
            wishes = lots.share(WISHES)
            reply, texts = (idle.NO_TOOL, idle.WISHES) if wishes else lots.one(idle.TALK)
            text = _blanks_filled(lots.one(texts), lots)
            if not any(_is_about(tool, text) for tool in self._tools.values()):
                return _user(text[0].upper() + text[1:]), Message(role="assistant", content=reply)


def _arguments(tool: ToolDefinition, lots: Lots, side: int) -> Json:
    return Drawing(tool.parameters, lots, side).arguments()


def _askable(tool: ToolDefinition) -> list[str]:
    """Arguments that it needs, and that are one value."""
    required, properties = tool.parameters.get("required", []), tool.parameters["properties"]
    single = ("string", "integer", "number")
    return [name for name in required if "const" not in properties[name] and kind_of(properties[name]) in single]


def _links(first: ToolDefinition, then: ToolDefinition) -> list[Link]:
    gives, takes = first.returns.get("properties", {}), then.parameters["properties"]
    return [
        Link(first, one, then, other)
        for one, given in gives.items()
        for other, taken in takes.items()
        if _is_named_so(one, other, first.name)
        and kind_of(given) == kind_of(taken) in ("string", "integer")
        and not {"enum", "const"} & {*given, *taken}
        and one in first.returns.get("required", gives)
    ]


def _is_named_so(given: str, taken: str, tool: str) -> bool:
    """The same name, or `id` of `find_customer` and `customer_id`."""
    if given == taken:
        return True
    rest = taken.removesuffix(given)
    return rest != taken and bool(rest) and set(words_of(rest)) <= set(words_of(tool))


def _is_about(tool: ToolDefinition, text: str) -> bool:
    words = {word for word in (*words_of(tool.name), *words_of(tool.description)) if len(word) > 3}
    return any(text_has(text, word) for word in words)


def _user(text: str) -> Message:
    return Message(role="user", content=text)


def _calls(*called: tuple[ToolDefinition, Json]) -> Message:
    uses = tuple(ToolUse(name=tool.name, arguments=canonical(arguments)) for tool, arguments in called)
    return Message(role="assistant", tool_calls=uses)


def _result(tool: ToolDefinition, result: object) -> Message:
    return Message(role="tool", name=tool.name, content=canonical(result))


def _blanks_filled(text: str, lots: Lots) -> str:
    person, (thing, other) = vocabulary.person(lots), lots.mixed(idle.THINGS.split("|"))[:2]
    blanks: Mapping[str, object] = {
        "person": person,
        "first": person.split()[0],
        "site": vocabulary.site(lots),
        "number": lots.between(2, 89),
        "thing": thing,
        "other": other,
        "do": lots.one(idle.DO.split("|")),
        "what": lots.one(idle.WHAT.split("|")),
    }
    return text.format(**blanks)
