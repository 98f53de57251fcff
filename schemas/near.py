"""Which word of a closed set a mistyped one is meant to be: the one place that guesses."""

from collections.abc import Iterable, Sequence
from difflib import get_close_matches

LETTERS = 80
"""Of a word that somebody else wrote, so much is compared."""
CLOSE = 0.6


def near(word: str, known: Iterable[str], most: int = 1, close: float = CLOSE) -> Sequence[str]:
    """The closest first, whatever their case; none where nothing is close."""
    small = {name.lower(): name for name in known}
    return [small[name] for name in get_close_matches(word[:LETTERS].lower(), small, most, close)]


def meant(word: str, known: Iterable[str]) -> str:
    """What stands behind a sentence that says that there is no such word: a question, or nothing."""
    return "".join(f" Is {name!r} meant?" for name in near(word, known))
