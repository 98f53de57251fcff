"""Tokens to text as they come: a piece is let out once no later token can change it, or begin a stop."""

from collections.abc import Callable, Sequence

Decode = Callable[[Sequence[int]], str]
_HALF = "\ufffd"
HALF_BYTES = 3
"""Of a letter that is not whole yet: tokenizers write at most one such sign for each."""
KEPT, LONGEST = 8, 16
"""Tokens before the end that are read again with the next one: a letter's own four, and what stands before it."""


class TextStream:
    """Decodes from a little before the end only, so a long answer costs no more a token than a short one."""

    def __init__(self, decode: Decode) -> None:
        self._decode = decode
        self._ids: list[int] = []
        self._told = 0
        """Letters of the text of these tokens."""

    def push(self, tokens: Sequence[int]) -> str:
        """Decodes once, however many they are. What may be half a letter is held back, and never more than that."""
        self._ids += tokens
        text = self._decode(self._ids)
        settled = len(text) - _open(text)
        piece, self._told = text[self._told : settled], max(self._told, settled)
        if len(self._ids) > LONGEST:
            self._forget(text)
        return piece

    def _forget(self, text: str) -> None:
        """All but the last tokens, from where a letter begins."""
        untold = len(text) - self._told
        starts = range(len(self._ids) - KEPT, len(self._ids) - KEPT - 1 - HALF_BYTES, -1)
        ends = [(start, self._decode(self._ids[start:])) for start in starts]
        start, end = next(((start, end) for start, end in ends if text.endswith(end)), ends[0])
        del self._ids[:start]
        self._told = max(0, len(end) - untold)


def _open(text: str) -> int:
    """How many letters of its end may be one that is not whole yet."""
    last = text[-HALF_BYTES:]
    return len(last) - len(last.rstrip(_HALF))


class Stops:
    """Ends a text before the first of these. What may be the beginning of one is held back."""

    def __init__(self, stops: Sequence[str]) -> None:
        self._stops = [_Begun(stop) for stop in stops]
        self._longest = max(map(len, stops), default=0)
        self._text, self._told = "", 0
        self.at: int | None = None
        """Where the text ends, once a stop was found."""

    def push(self, piece: str) -> str:
        """What may be told now."""
        searched = max(0, len(self._text) - self._longest)
        self._text += piece
        found = [place for stop in self._stops if (place := self._text.find(stop.text, searched)) >= 0]
        self.at = min(found) if found else None
        held = max((stop.push(piece) for stop in self._stops), default=0) if self.at is None else 0
        return self._tell(len(self._text) - held if self.at is None else self.at)

    def rest(self, text: str) -> str:
        """Of the whole text, what was not told yet."""
        piece = self.push(text[len(self._text) :]) if self.at is None else ""
        return piece + self._tell(len(text) if self.at is None else self.at)

    def _tell(self, end: int) -> str:
        piece, self._told = self._text[self._told : end], max(self._told, end)
        return piece


class _Begun:
    """How many of a stop's letters the text ends with, found letter by letter and never looked for again."""

    def __init__(self, text: str) -> None:
        self.text = text
        self._count = 0
        self._shorter = [0]
        """By letters that are there: how many are, where the next one does not fit."""
        count = 0
        for letter in text[1:]:
            count = self._after(count, letter)
            self._shorter.append(count)

    def push(self, piece: str) -> int:
        """Of a text without the stop."""
        if len(piece) >= len(self.text):
            self._count, piece = 0, piece[1 - len(self.text) :] if len(self.text) > 1 else ""
        for letter in piece:
            self._count = self._after(self._count, letter)
        return self._count

    def _after(self, count: int, letter: str) -> int:
        while count and self.text[count] != letter:
            count = self._shorter[count - 1]
        return count + (self.text[count] == letter)
