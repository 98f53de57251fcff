"""The child process that trains, one run after the other: specs on standard input, reports on standard output.

Standard input stays open as long as the worker lives: when it ends, so does the child.
"""

import gc
import os
import re
import threading
import time
from contextlib import suppress
from pathlib import Path
from queue import SimpleQueue
from typing import BinaryIO

from gpu_workers.bases.before_torch import settle
from gpu_workers.errors import NO_ROOM
from gpu_workers.train.lines import Broken, Line, ProofSpec, Report, SpecTaken, spec_of, to_bytes
from schemas.errors import RillfoldError

BEAT_SECONDS = 5.0
# Of the CPU, in one beat: a process that waits for ever uses none.
BUSY_SECONDS = 0.05


def main() -> None:
    settle()
    _go_first()
    voice = Voice(os.fdopen(os.dup(1), "wb", buffering=0))
    os.dup2(2, 1)  # whatever a library prints goes to the log, not between our lines
    specs: SimpleQueue[bytes] = SimpleQueue()
    # A file of its own: the interpreter cannot close one at its end while a thread reads it, and aborts instead.
    given = os.fdopen(os.dup(0), "rb")
    threading.Thread(target=_hear, args=(given, specs), daemon=True).start()
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


def _go_first() -> None:
    """When memory runs out, the run that took it ends, and neither the worker nor a server beside it."""
    with suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text("1000")


def _train_all(specs: SimpleQueue[bytes], voice: Voice) -> None:
    """Until the worker goes; on a GPU, once."""
    import torch

    from gpu_workers.train.proof import prove  # after the environment is set
    from gpu_workers.train.run import run

    while True:
        spec = spec_of(specs.get())
        if torch.cuda.is_available():
            torch.zeros(1, device="cuda")  # a card that is ill shows it before the run is taken
        voice.send(SpecTaken())
        voice.send(Report(phase="start", step=0, steps=0))
        try:
            voice.send(prove(spec, voice.send) if isinstance(spec, ProofSpec) else run(spec, voice.send))
        except (RillfoldError, MemoryError, torch.OutOfMemoryError) as error:
            voice.send(Broken(reason=reason_of(error), detail=str(error)))
        except OSError as error:
            if error.errno not in NO_ROOM:
                raise
            voice.send(Broken(reason="no_space", detail=str(error)))
        if torch.cuda.is_available():
            return
        gc.collect()  # a model and its adapter hold each other: the next run has the room of this one


def reason_of(error: Exception) -> str:
    """An error's name, as events spell reasons."""
    if not isinstance(error, RillfoldError):
        return "out_of_memory"
    return re.sub(r"\B(?=[A-Z])", "_", type(error).__name__).lower()


def _hear(stream: BinaryIO, specs: SimpleQueue[bytes]) -> None:
    for line in stream:
        specs.put(line)
    os._exit(70)


if __name__ == "__main__":
    main()
