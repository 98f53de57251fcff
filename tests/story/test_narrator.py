"""The demo in a pipe: never long without a word, and the word says what goes on and since when."""

import asyncio
import io
import re
import sys
import threading

from rillfold.demo.narrator import Narrator
from rillfold.demo.stage import _heard
from tests.support.waiting import until


def test_what_takes_long_says_so_again_and_again_with_what_is_known_of_it() -> None:
    file = io.StringIO()
    narrator, sign = Narrator(file, silence=0.02), "… training acme/default: train 3/26, 41 s left"
    with narrator.never_silent(), narrator.live("training acme/default") as show:
        show("train 3/26, 41 s left")
        until("signs of life", lambda: file.getvalue().count(sign) >= 3, 30, 0.01)
    assert re.search(r"41 s left, \d+ s so far\n", file.getvalue())
    assert "  training acme/default …\n" in file.getvalue()


def test_within_a_wait_another_is_told_and_then_the_outer_again() -> None:
    file = io.StringIO()
    narrator = Narrator(file, silence=0.02)
    with narrator.never_silent(), narrator.live("outer"):
        with narrator.live("inner", told=False):
            until("the inner", lambda: "… inner" in file.getvalue(), 30, 0.01)
        until("the outer", lambda: "… outer" in file.getvalue(), 30, 0.01)


def test_who_speaks_himself_needs_no_sign() -> None:
    file = io.StringIO()
    narrator = Narrator(file, silence=3600)
    with narrator.never_silent(), narrator.live("something", told=False):
        narrator.console.print("a line")
    assert file.getvalue() == "a line\n"
    assert "signs-of-life" not in {thread.name for thread in threading.enumerate()}


async def test_a_commands_newest_line_is_shown_while_it_runs() -> None:
    script = "import sys; given = sys.stdin.read(); print('step 1/2', file=sys.stderr); print(given.upper())"
    pipe = asyncio.subprocess.PIPE
    child = await asyncio.create_subprocess_exec(sys.executable, "-c", script, stdin=pipe, stdout=pipe, stderr=pipe)
    shown: list[str] = []
    out, said = await _heard(child, b"words", shown.append)
    assert (out, said, shown, child.returncode) == (b"WORDS\n", "step 1/2\n", ["step 1/2"], 0)
