"""Rows for people: a table where it fits, and where it does not a paragraph for each row. No word is cut or broken, so
that an id can be copied, however narrow the terminal is."""

from collections.abc import Iterable, Iterator, Sequence
from shutil import get_terminal_size
from textwrap import wrap

import click

from rillfold.cli.terminal.plain import plain

GAP = "  "
SENTENCE = 24
"""A column of sentences is folded rather than a table given up, but to no less than this."""


def room() -> int:
    """The terminal's columns, or what COLUMNS says. 0: nobody looks at it, and a row stays a line for `grep`."""
    return get_terminal_size((0, 0)).columns


def say_table(heads: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    for line in table(heads, rows, room()):
        click.echo(line)


def table(heads: Sequence[str], rows: Iterable[Sequence[object]], width: int) -> Iterator[str]:
    """The first column is what a row is looked for by."""
    cells = [[_one_line(cell) for cell in row] for row in rows]
    widths = _widths([heads, *cells], width)
    if widths is None:
        for row in cells:
            yield row[0] or "-"
            yield from facts(zip(heads[1:], row[1:], strict=True), width)
        return
    for each in (heads, *cells):
        folded = [_folded(cell, most) for cell, most in zip(each, widths, strict=True)]
        for n in range(max(map(len, folded))):
            parts = [part[n] if n < len(part) else "" for part in folded]
            yield GAP.join(f"{part:{most}}" for part, most in zip(parts, widths, strict=True)).rstrip()


def facts(pairs: Iterable[tuple[str, object]], width: int) -> Iterator[str]:
    """Names and what they say; under its name what does not fit beside it. What says nothing is left out."""
    told = [(name, text) for name, value in pairs if (text := _one_line(value))]
    label = max((len(name) for name, _ in told), default=0)
    for name, text in told:
        line = f"{GAP}{name:{label}}{GAP}{text}"
        if not width or len(line) <= width:
            yield line
            continue
        yield f"{GAP}{name}"
        yield from (f"{GAP}{part}" for part in _folded(text, max(1, width - len(GAP))))


def _widths(rows: Sequence[Sequence[str]], width: int) -> list[int] | None:
    """None: they do not fit. The widest column of sentences gives way, no other."""
    columns = list(zip(*rows, strict=True))
    widths = [max(map(len, column)) for column in columns]
    over = sum(widths) + len(GAP) * (len(widths) - 1) - width
    if not width or over <= 0:
        return widths
    sentences = [n for n, column in enumerate(columns) if any(" " in cell for cell in column[1:])]
    widest = max(sentences, key=lambda n: widths[n], default=0)
    widths[widest] -= over
    longest = max(len(word) for cell in columns[widest] for word in cell.split(" "))
    return widths if widths[widest] >= max(SENTENCE, longest) else None


def _folded(text: str, most: int) -> list[str]:
    if len(text) <= most:
        return [text]
    return wrap(text, most, break_long_words=False, break_on_hyphens=False)


def _one_line(cell: object) -> str:
    return plain(str(cell)).replace("\n", " ").replace("\t", " ")
