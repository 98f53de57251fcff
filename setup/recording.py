"""A recording from a real run: COLUMNS=100 rillfold demo | python setup/recording.py docs/demo.svg

Each line comes when it came, in a minute's film of the whole. Nothing of it is written by hand.
"""

import sys
import time
from collections.abc import Iterator, Sequence
from html import escape
from pathlib import Path
from typing import NamedTuple

COLUMNS, ROWS = 100, 30
WIDTH, HEIGHT, MARGIN = 7.8, 17, 12
"""Of a letter, of a line and around all of them."""
SECONDS, STILL = 50.0, 10.0
"""So long the film is, and so long its end stands."""
STYLE = "font: 13px ui-monospace, SFMono-Regular, Menlo, Consolas, monospace; white-space: pre"


class Told(NamedTuple):
    at: float
    line: str


def listened(lines: Iterator[str]) -> Iterator[Told]:
    """Also shown to whoever looks on."""
    began = time.monotonic()
    for line in lines:
        sys.stdout.write(line)
        sys.stdout.flush()
        for piece in _pieces(line.rstrip("\n")):
            yield Told(time.monotonic() - began, piece)


def _pieces(line: str) -> list[str]:
    return [line[start : start + COLUMNS] for start in range(0, max(1, len(line)), COLUMNS)]


def film(told: Sequence[Told]) -> str:
    end = told[-1].at
    times = [each.at / end * SECONDS for each in told]
    whole = SECONDS + STILL
    texts = "".join(_text(n, each.line, times[n], whole) for n, each in enumerate(told))
    width, height = COLUMNS * WIDTH + 2 * MARGIN, ROWS * HEIGHT + 2 * MARGIN
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:.0f} {height}" role="img">'
        f"<title>rillfold demo, a run of {end:.0f} s in {SECONDS:.0f} s</title>"
        f'<rect width="100%" height="100%" rx="6" fill="#14181d"/>'
        f'<svg x="{MARGIN}" y="{MARGIN}" width="{COLUMNS * WIDTH:.0f}" height="{ROWS * HEIGHT}" overflow="hidden">'
        f'<g style="{STYLE}">{_scroll(times, whole)}{texts}</g></svg></svg>\n'
    )


def _text(number: int, line: str, at: float, whole: float) -> str:
    """There from its moment on, in every turn of the film."""
    colour = "#7fd1b9" if "──" in line else "#d7dde4"
    shown = f'<animate attributeName="opacity" values="0;1" keyTimes="0;{at / whole:.4f}" calcMode="discrete" '
    turns = f'dur="{whole:.0f}s" repeatCount="indefinite"/>'
    return f'<text y="{(number + 1) * HEIGHT - 4}" fill="{colour}">{escape(line)}{shown}{turns}</text>'


def _scroll(times: Sequence[float], whole: float) -> str:
    moves = [(0.0, 0), *((at / whole, -(n + 1 - ROWS) * HEIGHT) for n, at in enumerate(times) if n >= ROWS)]
    values = ";".join(f"0 {y}" for _, y in moves)
    keys = ";".join(f"{at:.4f}" for at, _ in moves)
    return (
        f'<animateTransform attributeName="transform" type="translate" values="{values}" keyTimes="{keys}" '
        f'calcMode="discrete" dur="{whole:.0f}s" repeatCount="indefinite"/>'
    )


if __name__ == "__main__":
    heard = list(listened(sys.stdin))
    if not heard:
        sys.exit("Nothing was told. Pipe a run into this: COLUMNS=100 rillfold demo | python setup/recording.py FILE")
    Path(sys.argv[1]).write_text(film(heard))
