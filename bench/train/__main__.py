"""The settings that torch reads at its first import come first. Nothing here trains: every contestant is a child."""

from gpu_workers.bases.before_torch import settle


def main() -> None:
    settle()

    from bench.train.run import main as run  # only now: it imports torch

    run()


if __name__ == "__main__":
    main()
