"""Who tells the story: by a line that moves on a terminal, and never silent for long where none is."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from time import monotonic
from typing import TextIO

from rich.console import Console

SILENCE = 8.0
"""Who reads a pipe or a log hears of it at least so often."""


class Heard:
    """What is written to, and when somebody last wrote there."""

    def __init__(self, file: TextIO) -> None:
        self._file = file
        self.at = monotonic()

    def write(self, text: str) -> int:
        self.at = monotonic()
        return self._file.write(text)

    def __getattr__(self, name: str) -> object:
        return getattr(self._file, name)


class Narrator:
    def __init__(self, file: TextIO, silence: float = SILENCE) -> None:
        self._heard = Heard(file)
        self._silence = silence
        self._doing, self._since = "at work", monotonic()
        # All that it does not have itself it hands on, which no type can say.
        self.console = Console(file=self._heard, highlight=False)  # type: ignore[arg-type]

    @contextmanager
    def live(self, what: str, told: bool = True) -> Iterator[Callable[[str], None]]:
        """While something takes time. `told`: its beginning is a line of its own where no terminal is."""
        if self.console.is_terminal:
            with self.console.status(f"{what} …") as status:
                yield lambda text: status.update(f"{what}: {text}")
            return
        if told:
            self.console.print(f"  {what} …")
        before, since = self._doing, self._since
        self._doing, self._since = what, monotonic()
        try:
            yield lambda text: setattr(self, "_doing", f"{what}: {text}")
        finally:
            self._doing, self._since = before, since

    @contextmanager
    def never_silent(self) -> Iterator[None]:
        if self.console.is_terminal:
            yield
            return
        over = threading.Event()
        watching = threading.Thread(target=self._watch, args=(over,), name="signs-of-life", daemon=True)
        watching.start()
        try:
            yield
        finally:
            over.set()
            watching.join()

    def _watch(self, over: threading.Event) -> None:
        while not over.wait(max(0.01, self._heard.at + self._silence - monotonic())):
            if monotonic() - self._heard.at >= self._silence:
                self.console.print(f"  … {self._doing}, {monotonic() - self._since:.0f} s so far", soft_wrap=True)
