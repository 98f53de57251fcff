"""Text as it comes is the beginning of the whole, at a cost that does not depend on what it says."""

from __future__ import annotations

from collections.abc import Sequence
from random import Random

import pytest

from gpu_workers.serve.text import HALF_BYTES, LONGEST, Stops, TextStream

LETTERS = ["a", "é", "€", "😀", "\ufffd"]
BYTES = bytes.fromhex("61f09f9880e282acff")


def decode(ids: Sequence[int]) -> str:
    """A token is a byte."""
    return bytes(ids).decode(errors="replace")


def raw_texts(dice: Random) -> bytes:
    if dice.random() < 0.5:
        return bytes(dice.choice(BYTES) for _ in range(60))
    return "".join(dice.choice(LETTERS) for _ in range(dice.randint(0, 40))).encode()


def test_whatever_is_told_is_the_beginning_of_the_whole_and_soon_told() -> None:
    dice = Random(0)
    for _ in range(1_000):
        raw, told, at = raw_texts(dice), "", 0
        stream = TextStream(decode)
        while at < len(raw):
            size = dice.choice([1, 1, 1, 2, 3, 30])
            told += stream.push(raw[at : at + size])
            at += size
            assert decode(raw).startswith(told)
            assert len(told) >= len(decode(raw[:at])) - HALF_BYTES


@pytest.mark.parametrize("letter", LETTERS)
@pytest.mark.parametrize("size", [1, 5_000])
def test_a_text_costs_the_same_whatever_it_says(letter: str, size: int) -> None:
    """Also one of nothing but the sign that stands for half a letter, and thousands of tokens that come at once."""
    read: list[int] = []

    def counted(ids: Sequence[int]) -> str:
        read.append(len(ids))
        return decode(ids)

    stream, raw = TextStream(counted), (letter * 1_500).encode()
    told = "".join(stream.push(raw[at : at + size]) for at in range(0, len(raw), size))
    assert (letter * 1_500).startswith(told) and len(told) >= 1_500 - HALF_BYTES
    assert sum(read) < 2 * LONGEST * len(raw)


def test_stops_end_a_text_before_the_first_of_them_however_it_comes() -> None:
    dice = Random(0)
    for _ in range(2_000):
        stops = ["".join(dice.choices("ab", k=dice.randint(1, 7))) for _ in range(dice.randint(0, 4))]
        watch, text, told = Stops(stops), "", ""
        while watch.at is None and len(text) < 40:
            piece = "".join(dice.choices("abc", k=dice.randint(0, 9)))
            text, told = text + piece, told + watch.push(piece)
            at = min((place for stop in stops if (place := text.find(stop)) >= 0), default=None)
            held = max((n for stop in stops for n in range(len(stop)) if n and text.endswith(stop[:n])), default=0)
            assert watch.at == at
            assert told == text[: len(text) - held if at is None else at]


def test_many_long_stops_cost_no_more_than_the_letters_that_come() -> None:
    """Each letter moves each stop on once: nothing is compared anew with every piece."""
    moves: list[None] = []
    watch = Stops([chr(0x4E00 + i) * 199 + str(i % 10) for i in range(16)])
    for begun in watch._stops:
        real = begun._after
        begun._after = lambda *how, real=real: moves.append(None) or real(*how)  # type: ignore[method-assign, func-returns-value]
    text = "\u4e00" * 150 + "xyz " * 500
    assert "".join(watch.push(text[at : at + 4]) for at in range(0, len(text), 4)) == text
    assert len(moves) == 16 * len(text)
