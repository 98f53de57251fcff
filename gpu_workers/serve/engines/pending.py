"""A question that the engine's thread works on, as the event loop sees it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

from gpu_workers.bases.chat import Chat
from gpu_workers.serve.engine.engine import Fell, LoraRow, Said
from gpu_workers.serve.engine.sample import Drawn
from gpu_workers.serve.port import Chance, Choice, OnSnippet, Snippet
from gpu_workers.serve.seen import Visit
from gpu_workers.serve.text import Stops, TextStream
from processors.answers import CallForm, may_begin_bare
from schemas.errors import RillfoldError

BytesOf = Callable[[int], bytes]


class Pending:
    """`bytes_of` is the chat's: asked for each chance of each token, so it had better remember."""

    def __init__(
        self,
        row: LoraRow,
        chat: Chat,
        bytes_of: BytesOf,
        stops: Sequence[str],
        on_snippet: OnSnippet | None,
        visit: Visit,
    ) -> None:
        self.row, self._chat, self._bytes_of, self._visit = row, chat, bytes_of, visit
        self._on_snippet = on_snippet
        self.done: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self._stream, self._stops = TextStream(chat.decode), Stops(stops)
        self.tokens: list[int] = []
        self.choices: list[Choice] = []
        self._untold: list[Choice] = []
        self._begins: list[int] = []
        """Where in the text each choice's token begins, about."""
        self._letters = 0
        self._reads = on_snippet is not None or bool(stops)
        self.runs = True
        """Its row is in the engine."""

    def look(self) -> None:
        """Whether its row is in the batch by now."""
        if self.row.fed:
            self._visit.let_in()

    def take(self, said: Said | Fell) -> None:
        """Once it is done, what comes is of no interest."""
        self.runs = isinstance(said, Said) and said.finish is None
        if self.done.done():
            return
        if isinstance(said, Fell):
            self.fail(said.why)
            return
        self._choose(said)
        self.tokens += said.tokens
        for _ in said.tokens:
            self._visit.said()
        if self._reads and (piece := self._stops.push(self._read(said.tokens))):
            self._tell(piece)
        if self._stops.at is not None or said.finish:
            self.done.set_result("stop" if self._stops.at is not None else str(said.finish))

    def _read(self, tokens: Sequence[int]) -> str:
        piece = self._stream.push(tokens)
        self._letters += len(piece)
        return piece

    def fail(self, why: RillfoldError) -> None:
        if not self.done.done():
            self.done.set_exception(why)

    def ended(self) -> str:
        """The whole text; its last piece is told."""
        whole = self._chat.decode(self.tokens)
        piece = self._stops.rest(whole)
        if piece or self._untold:
            self._tell(piece)
        if self._stops.at is None:
            return whole
        self.choices = [each for each, start in zip(self.choices, self._begins, strict=True) if start < self._stops.at]
        return whole[: self._stops.at]

    def _tell(self, piece: str) -> None:
        if self._on_snippet is not None:
            self._on_snippet(Snippet(piece, tuple(self._untold)))
        self._untold.clear()

    def _choose(self, said: Said) -> None:
        if self.row.logprobs is None:
            return
        choice = chosen(said.tokens[0], said.drawn, self._bytes_of)
        self.choices.append(choice)
        self._begins.append(self._letters)
        self._untold.append(choice)


def untold_calls(hear: OnSnippet, form: CallForm) -> OnSnippet:
    """For who reads along: of an answer that may be bare calls, no word is told before it is whole, for there is no tag
    that says where they begin."""
    if not form.bare:
        return hear
    held: str | None = ""

    def heard(snippet: Snippet) -> None:
        nonlocal held
        if held is not None:
            held += snippet.text
            may_call = may_begin_bare(held)
            snippet, held = snippet._replace(text="" if may_call else held), held if may_call else None
        hear(snippet)

    return heard


def chosen(token: int, drawn: Drawn, bytes_of: BytesOf) -> Choice:
    likeliest = tuple(Chance(token=bytes_of(each), logprob=chance) for each, chance in drawn.likeliest)
    return Choice(said=Chance(token=bytes_of(token), logprob=drawn.said), likeliest=likeliest)
