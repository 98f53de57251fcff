"""Tokens to text as they come: a piece is let out once no later token can change it."""

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
