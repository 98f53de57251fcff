"""Tokens to text as they come: a piece is let out once no later token can change it, or begin a stop."""

from collections.abc import Callable, Sequence

Decode = Callable[[Sequence[int]], str]
_HALF = "\ufffd"


class TextStream:
    """Decodes from a little before the end only, so a long answer costs no more a token than a short one."""

    def __init__(self, decode: Decode) -> None:
        self._decode = decode
        self._ids: list[int] = []
        self._start = self._read = 0

    def push(self, token: int) -> str:
        self._ids.append(token)
        before = self._decode(self._ids[self._start : self._read])
        now = self._decode(self._ids[self._start :])
        if len(now) <= len(before) or now.endswith(_HALF):
            return ""
        self._start, self._read = self._read, len(self._ids)
        return now[len(before) :]


class Stops:
    """Ends a text before the first of these. What may be the beginning of one is held back."""

    def __init__(self, stops: Sequence[str]) -> None:
        self._stops = stops
        self._text, self._told = "", 0
        self.at: int | None = None
        """Where the text ends, once a stop was found."""

    def push(self, piece: str) -> str:
        """What may be told now."""
        searched = max(0, len(self._text) - max(map(len, self._stops), default=0))
        self._text += piece
        found = [place for stop in self._stops if (place := self._text.find(stop, searched)) >= 0]
        self.at = min(found) if found else None
        return self._tell(len(self._text) - self._held() if self.at is None else self.at)

    def rest(self, text: str) -> str:
        """Of the whole text, what was not told yet."""
        piece = self.push(text[len(self._text) :]) if self.at is None else ""
        return piece + self._tell(len(text) if self.at is None else self.at)

    def _held(self) -> int:
        longest = max(map(len, self._stops), default=0)
        ends = range(min(longest, len(self._text)), 0, -1)
        return next((n for n in ends if any(stop.startswith(self._text[-n:]) for stop in self._stops)), 0)

    def _tell(self, end: int) -> str:
        piece, self._told = self._text[self._told : end], max(self._told, end)
        return piece
