"""What torch and its companions read when they are first imported: afterwards it is too late."""

import os
import sys


def settle() -> None:
    """Nothing from a hub, the same bytes on a GPU, and threads that share the machine.

    Threads that wait spin for some microseconds, then sleep: spinning on multiplies the time of whatever else runs
    here, sleeping at once takes 1.4 times as long when nothing else does (docs/log.md).
    """
    os.environ.update(HF_HUB_OFFLINE="1", TOKENIZERS_PARALLELISM="false", CUBLAS_WORKSPACE_CONFIG=":16:8")
    os.environ.update(GOMP_SPINCOUNT="10000")
    # Nobody here quantises. Where it is installed, peft imports it for everybody: a quarter of what a start costs.
    sys.modules.setdefault("bitsandbytes", None)  # type: ignore[arg-type]
