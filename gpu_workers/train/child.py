"""The child process that trains. It reads its spec from standard input and reports on standard output, in lines.

Standard input stays open as long as the worker lives: when it ends, so does the child.
"""

from __future__ import annotations

import os
import re
import sys
import threading
from typing import BinaryIO

from gpu_workers.train.lines import Line, Refused, spec_of, to_bytes
from schemas.errors import RillfoldError


def main() -> None:
    # Read by libraries when they are first imported.
    os.environ.update(HF_HUB_OFFLINE="1", TOKENIZERS_PARALLELISM="false", CUBLAS_WORKSPACE_CONFIG=":16:8")
    # Threads that wait spin for some microseconds, then sleep. Spinning on multiplies the time of whatever else runs
    # here; sleeping at once takes 1.4 times as long when nothing else does (docs/log.md).
    os.environ.update(GOMP_SPINCOUNT="10000")
    reports = os.fdopen(os.dup(1), "wb", buffering=0)
    os.dup2(2, 1)  # whatever a library prints goes to the log, not between our lines
    spec = sys.stdin.buffer.readline()
    threading.Thread(target=_die_with_the_worker, args=(sys.stdin.buffer,), daemon=True).start()
    _train(spec, reports)


def _train(spec: bytes, reports: BinaryIO) -> None:
    from gpu_workers.train.run import run  # after the environment is set

    def send(line: Line) -> None:
        reports.write(to_bytes(line))

    try:
        send(run(spec_of(spec), send))
    except RillfoldError as error:
        send(Refused(reason=re.sub(r"\B(?=[A-Z])", "_", type(error).__name__).lower(), detail=str(error)))


def _die_with_the_worker(stream: BinaryIO) -> None:
    stream.read()
    os._exit(70)


if __name__ == "__main__":
    main()
