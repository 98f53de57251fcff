"""A model's own chat template, where it knows tools: what it writes, cut where the model's special tokens stand.

What people wrote is never a special token. Each one that their text spells is broken by a mark before the template
reads it; in what the template writes only unbroken ones count, and then the marks go. So the template sees, trims and
compares the very text, and no rule about where it puts it is needed.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from jinja2 import TemplateError

from gpu_workers.bases.templates.chatml import Stretch, functions, must_speak_in_turn
from gpu_workers.bases.templates.sandbox import Sandbox
from gpu_workers.errors import BaseModelRefused, MessageRefused
from processors.answers import BARE, TAGGED, CallForm, body, write
from schemas.company import Message, ToolUse

_MARKS = range(0xE000, 0xF900)
"""Private use: letters that mean nothing by themselves."""
_OURS = ("role", "content", "calls", "name", "type", "function", "description", "parameters")
_THOUGHT = "</think>"
_LOOKED_FOR = ("<think>", _THOUGHT, "<tool_response>", "</tool_response>")
"""Words by which templates know what a message is. Thoughts are taken out before, and results say so by their role."""
_ANSWER, _TOOL, _RESULT = "Yes it is", "probe_of_tools", "It is 7"
_ASKED = Message(role="user", content="Is it so?")
_CALL = ToolUse(name=_TOOL, arguments='{"a":1,"b":"x y"}')
_PARAMETERS = {"type": "object", "properties": {"a": {"type": "integer"}, "b": {"type": "string"}}}
_TOOLS = json.dumps([{"name": _TOOL, "description": "Tells.", "parameters": _PARAMETERS}])


class OwnTemplate:
    def __init__(self, template: str, words: Mapping[str, str], specials: Sequence[str]) -> None:
        """Raises `BaseModelRefused` unless it knows tools and writes them in a way that is known here."""
        self.text = template
        try:
            self._sandbox = Sandbox(template, words)
        except TemplateError as error:
            raise BaseModelRefused(f"the model's own chat template is none: {error}") from error
        self._specials = tuple(sorted((each for each in specials if each), key=len, reverse=True))
        self._split = re.compile("|".join(map(re.escape, self._specials)))
        self._thinks = _THOUGHT in template
        self.form, self._heads = TAGGED, tuple[str, ...]()
        try:
            self._must_know_tools()
            self.form = self._form_of_calls()
            self.end, self._heads = self._learned()
        except MessageRefused as error:
            raise BaseModelRefused(str(error)) from error

    def write(self, messages: Sequence[Message], tools: str | None, *, asks: bool) -> list[Stretch]:
        """`asks`: up to where the model starts to answer, without thinking; else everything that was said."""
        must_speak_in_turn(messages)
        said = [self._plain(message) for message in messages]
        offered = functions(tools) if tools else None
        marked = _Marked((*self._specials, *_LOOKED_FOR), (said, offered), self.form)
        pieces = list(self._cut(marked.text_of(self._sandbox, asks)))
        if marked.broke and _borders(pieces) != _borders(self._cut(marked.harmless().text_of(self._sandbox, asks))):
            raise MessageRefused(
                "a message spells one of the model's special tokens, and its own chat template lets it pass for one."
            )
        return [apart for text, special in pieces for apart in self._apart(Stretch(marked.without(text), special))]

    def tag(self, text: str) -> list[Stretch]:
        return list(self._cut(text))

    def _apart(self, piece: Stretch) -> list[Stretch]:
        """What stands before somebody's words, and the words: a model's own answer begins with a fresh token."""
        head = next((each for each in self._heads if not piece.special and piece.text.startswith(each)), "")
        return [Stretch(head), Stretch(piece.text.removeprefix(head))] if head else [piece]

    def _plain(self, message: Message) -> dict[str, Any]:
        """Calls stand beside the words, for their tags are not; thoughts are neither learned nor remembered."""
        content, calls = message.content, list[str]()
        if message.role == "assistant":
            content = content.rpartition(_THOUGHT)[2].lstrip("\n") if self._thinks else content
            calls = [write(call, self.form._replace(opens="", closes="")) for call in message.tool_calls]
        plain = {"role": message.role, "content": "" if calls and self.form.bare else content, "calls": calls}
        return plain | ({"name": message.name} if message.name else {})

    def _cut(self, text: str) -> Iterator[Stretch]:
        start = 0
        for found in self._split.finditer(text) if self._specials else ():
            if found.start() > start:
                yield Stretch(text[start : found.start()], False)
            yield Stretch(found.group(), True)
            start = found.end()
        if start < len(text):
            yield Stretch(text[start:], False)

    def _must_know_tools(self) -> None:
        said = [_ASKED, Message(role="assistant", tool_calls=(_CALL,)), Message(role="tool", content=_RESULT)]
        told = _joined(self.write(said, _TOOLS, asks=True))
        if _TOOL not in _joined(self.write([_ASKED], _TOOLS, asks=True)) or _RESULT not in told:
            raise MessageRefused("the model's own chat template knows no tools.")

    def _form_of_calls(self) -> CallForm:
        """As the template itself writes one. Ours must come out the same, or it is not learned and read as it is."""
        function = {"name": _CALL.name, "arguments": json.loads(_CALL.arguments)}
        turn = {"role": "assistant", "content": "", "tool_calls": [{"type": "function", "function": function}]}
        asked: list[Any] = [{"role": "user", "content": _ASKED.content}]
        given: dict[str, Any] = {"tools": functions(_TOOLS), "add_generation_prompt": False, "enable_thinking": False}
        theirs = self._sandbox.render(1_000, messages=[*asked, turn], **given)
        for form in (TAGGED, BARE):
            ours = {"role": "assistant", "content": body(Message(role="assistant", tool_calls=(_CALL,)), form)}
            if self._sandbox.render(1_000, messages=[*asked, ours], **given) == theirs:
                return form
        raise MessageRefused(f"the model's own chat template writes calls in a form not known here: {theirs[-300:]!r}.")

    def _learned(self) -> tuple[str, tuple[str, ...]]:
        """The token that ends an answer, and what may stand between a border and what somebody says."""
        prompt = self.write([_ASKED], None, asks=True)
        whole = self.write([_ASKED, Message(role="assistant", content=_ANSWER)], None, asks=False)
        before, answered, after = _joined(whole).partition(_ANSWER)
        ends = [text for text, special in self._cut(after) if special]
        if before != _joined(prompt) or not answered or not ends or not after.startswith(ends[0]):
            raise MessageRefused(
                f"what the model's own chat template writes of a conversation, {_joined(whole)!r}, does not begin with "
                f"what it asks with, {_joined(prompt)!r}, or has no token that ends the answer."
            )
        again = Message(role="user", content="And so?")
        system = Message(role="system", content="Be brief.")
        talk = self.write([system, _ASKED, Message(role="assistant", content=_ANSWER), again], None, asks=False)
        texts = (_ASKED.content, _ANSWER, system.content)
        heads = {each.partition(text)[0] for each, special in talk for text in texts if not special and text in each}
        if not prompt[-1].special:
            heads.add(prompt[-1].text)
        return ends[0], tuple(sorted(heads - {""}, key=len, reverse=True))


class _Marked:
    """Messages and tools with all that could pass for structure broken in two."""

    def __init__(self, specials: Sequence[str], given: Any, form: CallForm, mark: str | None = None) -> None:
        self._specials, self._form = specials, form
        texts = list(_texts(given))
        self._letters = sum(map(len, texts))
        self._mark = mark or _free_mark(texts)
        self.broke = False
        self._given = _said(given, self._broken)

    def text_of(self, sandbox: Sandbox, asks: bool) -> str:
        said, tools = self._given
        messages = [_with_calls(each, self._form) for each in said]
        return sandbox.render(
            self._letters, messages=messages, tools=tools, add_generation_prompt=asks, enable_thinking=False
        )

    def harmless(self) -> _Marked:
        """The same where all that was broken is other letters: the borders must come out the same."""
        letters = _said(self._given, lambda text: text.replace(self._mark, "x"))
        return _Marked(self._specials, letters, self._form, self._mark)

    def without(self, text: str) -> str:
        return text.replace(self._mark, "")

    def _broken(self, text: str) -> str:
        found = text
        for special in self._specials:
            found = found.replace(special, special[0] + self._mark + special[1:])
        found = self._at_its_ends(found)
        self.broke |= found != text
        return found

    def _at_its_ends(self, text: str) -> str:
        """Whatever the template puts there, no token goes across; blanks may be trimmed, and so are not the end."""
        said = text.strip()
        if not said:
            return text
        starts, ends = text.index(said[0]), len(text.rstrip())
        if any(said in special or _met(special, said, special) for special in self._specials):
            text, ends = text[:starts] + self._mark + text[starts:], ends + 1
        if any(_met(said, special, special) for special in self._specials):
            text = text[:ends] + self._mark + text[ends:]
        return text


def _with_calls(said: dict[str, Any], form: CallForm) -> dict[str, Any]:
    """As a template gets it. We write calls, so that there may be several, and their tags: a tag that is one of the
    model's special tokens is that token."""
    words = [said["content"]] if said["content"] else []
    calls = [f"{form.opens}{call}{form.closes}" for call in said["calls"]]
    plain = {name: value for name, value in said.items() if name != "calls"}
    return plain | {"content": form.between.join(words + calls)}


def _met(first: str, then: str, special: str) -> bool:
    """Whether some end of the first is how the other begins, and is not all of the token."""
    most = min(len(first), len(then), len(special) - 1)
    return any(then.startswith(first[-size:]) for size in range(1, most + 1))


def _free_mark(texts: Sequence[str]) -> str:
    for each in map(chr, _MARKS):
        if not any(each in text for text in texts):
            return each
    raise MessageRefused("The messages hold every letter of private use, so their words cannot be told from structure.")


def _said(given: Any, change: Any) -> Any:
    """Messages and tools with every text of people changed. Who speaks is no word of theirs."""
    messages, tools = given
    said = [
        {name: value if name == "role" else _each(value, change) for name, value in message.items()}
        for message in messages
    ]
    return said, _each(tools, change)


def _each(given: Any, change: Any) -> Any:
    """Every text in it, names of members too, but for those that are ours."""
    if isinstance(given, str):
        return change(given)
    if isinstance(given, dict):
        return {name if name in _OURS else change(name): _each(value, change) for name, value in given.items()}
    if isinstance(given, list | tuple):
        return [_each(value, change) for value in given]
    return given


def _texts(given: Any) -> Iterator[str]:
    if isinstance(given, str):
        yield given
    elif isinstance(given, dict):
        for name, value in given.items():
            yield name
            yield from _texts(value)
    elif isinstance(given, list | tuple):
        for value in given:
            yield from _texts(value)


def _borders(pieces: Any) -> list[str]:
    return [text for text, special in pieces if special]


def _joined(pieces: Sequence[Stretch]) -> str:
    return "".join(text for text, _ in pieces)
