"""The child process that trains, one run after the other: specs on standard input, reports on standard output.

Standard input stays open as long as the worker lives: when it ends, so does the child.
"""

from __future__ import annotations

import os
import re
import sys
import threading
import time
from queue import SimpleQueue
from typing import BinaryIO

from gpu_workers.before_torch import settle
from gpu_workers.train.lines import Line, Refused, Report, Taken, spec_of, to_bytes
from schemas.errors import RillfoldError

BEAT_SECONDS = 5.0
# Of the CPU, in one beat: a process that waits for ever uses none.
BUSY_SECONDS = 0.05


def main() -> None:
    settle()
    voice = Voice(os.fdopen(os.dup(1), "wb", buffering=0))
    os.dup2(2, 1)  # whatever a library prints goes to the log, not between our lines
    specs: SimpleQueue[bytes] = SimpleQueue()
    threading.Thread(target=_hear, args=(sys.stdin.buffer, specs), daemon=True).start()
    _train_all(specs, voice)


class Voice:
    """Says lines, and the last one again while this process computes: a step may outlast anybody's patience."""

    def __init__(self, reports: BinaryIO) -> None:
        self._reports, self._one_by_one = reports, threading.Lock()
        self._last: Line = Report(phase="start", step=0, steps=0)
        threading.Thread(target=self._keep_beating, daemon=True).start()

    def send(self, line: Line) -> None:
        with self._one_by_one:
            self._last = line
            self._reports.write(to_bytes(line))

    def _keep_beating(self) -> None:
        before = time.process_time()
        while True:
            time.sleep(BEAT_SECONDS)
            now = time.process_time()
            with self._one_by_one:
                if isinstance(self._last, Report) and now - before >= BUSY_SECONDS:
                    self._reports.write(to_bytes(self._last))
            before = now


def _train_all(specs: SimpleQueue[bytes], voice: Voice) -> None:
    """Until the worker goes; on a GPU, once."""
    import torch

    from gpu_workers.train.run import run  # after the environment is set

    while True:
        spec = spec_of(specs.get())
        voice.send(Taken())
        voice.send(Report(phase="start", step=0, steps=0))
        try:
            voice.send(run(spec, voice.send))
        except RillfoldError as error:
            voice.send(Refused(reason=re.sub(r"\B(?=[A-Z])", "_", type(error).__name__).lower(), detail=str(error)))
        if torch.cuda.is_available():
            return


def _hear(stream: BinaryIO, specs: SimpleQueue[bytes]) -> None:
    for line in stream:
        specs.put(line)
    os._exit(70)


if __name__ == "__main__":
    main()
