"""The settings that torch reads at its first import come first."""

import os

from gpu_workers.bases.before_torch import settle


def main() -> None:
    settle()
    os.environ["OMP_NUM_THREADS"] = "1"  # for threads that peers start, too

    from bench.serve.run import main as run  # only now: it imports torch

    run()


if __name__ == "__main__":
    main()
