"""Made-up tools, what is asked of them, and requests for which nothing is offered. The same seed gives the same ones.

Cases share their lists of tools, so that an engine reads each list once.
"""

import json
from collections.abc import Collection, Iterator, Sequence
from itertools import islice
from typing import Any, Literal, NamedTuple

from processors.measure.cases import Case
from processors.measure.draws import draws
from schemas.company import Message, ToolUse

SEED = 0
CASES = 24
"""Of each suite."""
OFFERED = 3

Filler = Literal["hall", "count", "colour", "name"]


class ForeignTool(NamedTuple):
    """`arguments`: what fills each, and so the blank of its name in the request."""

    name: str
    description: str
    arguments: dict[str, Filler]
    request: str

    def described(self) -> dict[str, Any]:
        kinds = {
            each: {"type": "integer" if filler == "count" else "string"} for each, filler in self.arguments.items()
        }
        parameters = {"type": "object", "properties": kinds, "required": list(kinds)}
        return {
            "type": "function",
            "function": {"name": self.name, "description": self.description, "parameters": parameters},
        }


TOOLS = (
    ForeignTool("tune_piano", "Have a piano tuned.", {"hall": "hall"}, "Have the piano in {hall} tuned."),
    ForeignTool("paint_boat", "Paint a boat.", {"boat": "name", "colour": "colour"}, "Paint the boat {boat} {colour}."),
    ForeignTool("count_sheep", "Count sheep up to a number.", {"until": "count"}, "Count sheep up to {until}."),
    ForeignTool("light_lantern", "Light lanterns.", {"hall": "hall"}, "Light the lanterns in {hall}, please."),
    ForeignTool("plant_tulips", "Plant tulips.", {"colour": "colour", "n": "count"}, "Plant {n} {colour} tulips."),
    ForeignTool("wake_owl", "Wake an owl by its name.", {"owl": "name"}, "Wake the owl {owl}."),
    ForeignTool("bake_loaves", "Bake loaves of bread.", {"number": "count"}, "Bake {number} loaves of bread."),
    ForeignTool("hang_flag", "Hang a flag.", {"hall": "hall", "colour": "colour"}, "Hang a {colour} flag in {hall}."),
    ForeignTool("feed_pony", "Feed a pony.", {"pony": "name"}, "The pony {pony} is hungry, feed it."),
)  # fmt: skip

IDLE = (
    "Thank you, {name}, that was all for today.",
    "How are you this morning?",
    "Why is {colour} such a calm colour?",
    "Tell me a joke about the number {count}.",
    "Good night, {name}!",
    "What does the word patience mean?",
    "My name is {name}. Nice to meet you.",
    "Is {count} an even number?",
    "I had a wonderful evening in {hall} and wanted to tell somebody.",
    "Which do you like better, {colour} or white?",
    "You have been very helpful.",
    "What rhymes with {name}?",
)
_WORDS: dict[Filler, Sequence[str]] = {
    "hall": ("the north hall", "the glass hall", "the old hall", "the music hall", "the upper hall", "the long hall"),
    "colour": ("red", "blue", "green", "yellow", "violet", "orange", "silver"),
    "name": ("Bramble", "Juniper", "Pepper", "Willow", "Clover", "Hazel", "Saffron", "Thistle"),
}


class Foreign(NamedTuple):
    """Of one seed: a tool that is offered is called, one that is not is nothing to call."""

    seed: int = SEED
    own: Collection[str] = ()
    """Names of the company's own tools: no made-up tool keeps one of them."""

    def calls(self, count: int = CASES) -> list[Case]:
        """A made-up tool fits, stands in the prompt, and is the right one."""
        return list(islice(self._calls(), count))

    def nothing_fits(self, count: int = CASES) -> list[Case]:
        """Every other one is idle talk; the others ask for a made-up tool that is not offered."""
        return list(islice(self._nothing_fits(), count))

    def _calls(self) -> Iterator[Case]:
        lists, drawn = self._lists(), draws(self.seed)
        for number, tool in enumerate(self._asked()):
            offered = next(each for each in lists if tool in each)
            values = {name: _filled(filler, next(drawn)) for name, filler in tool.arguments.items()}
            arguments = json.dumps(values, sort_keys=True, separators=(",", ":"))
            right = Message(role="assistant", tool_calls=(ToolUse(name=tool.name, arguments=arguments),))
            yield self._case("foreign_tools", number, tool.request.format(**values), offered, right)

    def _nothing_fits(self) -> Iterator[Case]:
        lists, drawn, idle = self._lists(), draws(~self.seed), 0
        for number, tool in enumerate(self._asked()):
            offered = next(each for each in lists if tool not in each)
            if number % 2:
                text = tool.request.format(**{n: _filled(filler, next(drawn)) for n, filler in tool.arguments.items()})
            else:
                text = IDLE[idle % len(IDLE)].format(**{f: _filled(f, next(drawn)) for f in (*_WORDS, "count")})
                idle += 1
            yield self._case("irrelevance", number, text, offered, None)

    def _case(
        self,
        suite: Literal["foreign_tools", "irrelevance"],
        number: int,
        text: str,
        offered: Sequence[ForeignTool],
        right: Message | None,
    ) -> Case:
        tools = json.dumps([tool.described() for tool in offered], separators=(",", ":"))
        return Case(
            id=f"{suite}-{self.seed}-{number}",
            suite=suite,
            prompt=(Message(role="user", content=text),),
            tools=tools,
            shown=right is not None,
            right=right,
        )

    def _asked(self) -> Iterator[ForeignTool]:
        tools = self._tools()
        while True:
            yield from tools

    def _lists(self) -> list[list[ForeignTool]]:
        tools = self._tools()
        return [tools[start::OFFERED] for start in range(OFFERED)]

    def _tools(self) -> list[ForeignTool]:
        return [tool._replace(name=self._free(tool.name)) for tool in TOOLS]

    def _free(self, name: str) -> str:
        return self._free(f"{name}_too") if name in self.own else name


def _filled(filler: Filler, drawn: int) -> Any:
    return 2 + drawn % 98 if filler == "count" else _WORDS[filler][drawn % len(_WORDS[filler])]
