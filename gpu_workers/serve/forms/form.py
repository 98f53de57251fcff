"""A grammar bound to a base model's tokens, and one answer's way through it.

`Forms` may be asked by many threads at once: a grammar compiles without the interpreter's lock, in bounded work. A
`Form` belongs to the thread that makes its answer.
"""

from __future__ import annotations

import threading
from collections import Counter, OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import NamedTuple, TypeVar

import llguidance
import numpy as np
from numpy.typing import NDArray

from gpu_workers.bases.chat import Chat
from gpu_workers.refused import BadQuestion, RowFailed
from gpu_workers.serve.forms.grammar import grammar
from gpu_workers.serve.forms.vocabulary import Vocabulary
from gpu_workers.serve.port import MustCall, MustFit

Words = NDArray[np.int32]
"""One bit for each token, the first in the lowest bit of the first word."""

Result = TypeVar("Result")

KEPT = 64
"""Grammars that stay compiled."""
WORN = 256
"""After so many answers a grammar is compiled anew: what it learned of its own states is bounded memory."""
STATES = 20_000
ITEMS_IN_ROW = 2_000
# Of one step of one row: some milliseconds at most. What needs more falls, and the engine goes on.
STEP_FUEL, STEP_ITEMS = 100_000, 10_000
COMPILE_FUEL, SYMBOLS = 1_000_000, 200_000


class _Key(NamedTuple):
    owner: str | None
    must: MustCall | MustFit
    tools: str | None


class Forms:
    """All forms over one base model. Made at once; the tokens are read when the first is asked for: in a second."""

    def __init__(self, chat: Chat) -> None:
        self._chat = chat
        self._vocabulary: Vocabulary | BadQuestion | None = None
        self._kept: OrderedDict[_Key, _Compiled | BadQuestion] = OrderedDict()
        self._reading, self._keeping = threading.Lock(), threading.Lock()

    @classmethod
    def of(cls, chat: Chat) -> Forms:
        return cls(chat)

    def for_(self, must: MustCall | MustFit, tools: str | None, owner: str | None = None) -> Form:
        """For one answer. Raises BadQuestion. Up to a second where a grammar is new: not on an event loop.

        What answers do to a grammar's states is felt by other answers of the same owner alone.
        """
        key = _Key(owner, must, tools if isinstance(must, MustCall) else None)
        with self._keeping:
            found = self._kept.get(key)
            if found is not None:
                self._kept.move_to_end(key)
        if found is None or (isinstance(found, _Compiled) and found.worn):
            found = self._judged(must, key.tools)
            with self._keeping:
                self._keep(key, found)
        if isinstance(found, BadQuestion):
            raise BadQuestion(str(found))
        return found.form()

    def _keep(self, key: _Key, found: _Compiled | BadQuestion) -> None:
        """Whose are the most loses the one that was asked for the longest ago."""
        self._kept[key] = found
        while len(self._kept) > KEPT:
            most = Counter(each.owner for each in self._kept).most_common(1)[0][0]
            del self._kept[next(each for each in self._kept if each.owner == most)]

    def _judged(self, must: MustCall | MustFit, tools: str | None) -> _Compiled | BadQuestion:
        """A question that cannot be held to its form costs its work once, too."""
        try:
            words = self._read()
            return _compiled(words.native, grammar(must, tools, self._chat.form, words), self._chat.end)
        except BadQuestion as error:
            return error

    def _read(self) -> Vocabulary:
        with self._reading:
            if self._vocabulary is None:
                try:
                    self._vocabulary = _run(lambda: Vocabulary(self._chat))
                except BadQuestion as error:
                    self._vocabulary = error
            if isinstance(self._vocabulary, BadQuestion):
                raise self._vocabulary
            return self._vocabulary


class Form:
    """One answer's way through its grammar. What it costs at one token is bounded; beyond that it is refused."""

    def __init__(
        self,
        matcher: llguidance.LLMatcher,
        end: int,
        begins: tuple[int, ...] = (),
        spoil: Callable[[], None] = lambda: None,
    ) -> None:
        self._matcher, self._end, self._spoil = matcher, end, spoil
        self.begins = begins
        """What every answer begins with, before anything is chosen."""
        self.ended = False

    def allowed(self) -> Words:
        """Which tokens may come next. Raises BadQuestion where it takes too much work to tell."""
        mask = self._run(self._matcher.compute_bitmask)
        self._sound()
        return np.frombuffer(mask, np.int32)

    def forced(self) -> list[int]:
        """What must come next, the end of the turn included; nothing of it is taken yet.

        Only as the tokenizer itself would cut the text, whatever follows it: where that is open, the model is asked.
        """
        if self.ended:
            return []
        tokens = self._run(self._matcher.compute_ff_tokens)
        self._sound()
        after = self._matcher
        if tokens:
            after = self._matcher.deep_copy()
            after.consume_tokens(tokens)
        done = after.is_stopped() and not after.is_error()
        return [*tokens, self._end] if done else tokens

    def take(self, token: int) -> None:
        """This token is said. Raises RowFailed for one that is not allowed, and BadQuestion for too much work."""
        if self.ended:
            raise RowFailed(f"token {token} was said after the end of a form.")
        if token == self._end and self._matcher.is_accepting():
            self.ended = True
            return
        if not self._run(lambda: self._matcher.try_consume_tokens([token])):
            self._sound()
            raise RowFailed(f"token {token} was said, which the form does not allow here.")
        self._sound()

    def _run(self, step: Callable[[], Result]) -> Result:
        try:
            return _run(step)
        except BadQuestion:
            self._spoil()
            raise

    def _sound(self) -> None:
        if self._matcher.is_error():
            self._spoil()
            raise BadQuestion(f"the answer cannot be held to its form: {_first_line(self._matcher.get_error())}")


@dataclass
class _Compiled:
    """Its forms share what the grammar learned of its states, and how many it may learn of; it is never moved on."""

    matcher: llguidance.LLMatcher
    end: int
    begins: tuple[int, ...] = ()
    given: int = field(default=0)

    @property
    def worn(self) -> bool:
        return self.given >= WORN

    def spoil(self) -> None:
        """An answer of it met an error, which may be that no more states are to be had: none shares them after it."""
        self.given = WORN

    def form(self) -> Form:
        self.given += 1
        return Form(self.matcher.deep_copy(), self.end, self.begins, self.spoil)


def _compiled(tokens: llguidance.LLTokenizer, text: str, end: int) -> _Compiled:
    limits = llguidance.LLParserLimits(
        max_items_in_row=ITEMS_IN_ROW,
        initial_lexer_fuel=COMPILE_FUEL,
        step_lexer_fuel=STEP_FUEL,
        step_max_items=STEP_ITEMS,
        max_lexer_states=STATES,
        max_grammar_size=SYMBOLS,
        precompute_large_lexemes=False,
        verbose_errors=False,
    )
    matcher = _run(lambda: llguidance.LLMatcher(tokens, text, log_level=0, limits=limits))
    if matcher.is_error():
        raise BadQuestion(f"nothing can be held to this form: {_first_line(matcher.get_error())}")
    return _Compiled(matcher, end, tuple(Form(matcher.deep_copy(), end).forced()))


def _run(step: Callable[[], Result]) -> Result:
    """Whatever goes wrong inside is the question's own failure: a panic of the native code is no Exception."""
    try:
        return step()
    except BadQuestion:
        raise
    except BaseException as error:
        if isinstance(error, Exception) or type(error).__name__ == "PanicException":
            raise BadQuestion(f"the form cannot be worked with: {_first_line(str(error))}") from error
        raise


def _first_line(error: str) -> str:
    return error.partition("\n")[0][:300]
