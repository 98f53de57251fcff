"""Numbers by chance that are always the same ones: each is a hash of its place and a seed."""

from collections.abc import Iterator

_64 = (1 << 64) - 1


def draws(seed: int) -> Iterator[int]:
    """SplitMix64: 64 bits each. What a remainder of one by a thousand favours is below one in 2^50."""
    state = seed & _64
    while True:
        state = (state + 0x9E3779B97F4A7C15) & _64
        mixed = ((state ^ (state >> 30)) * 0xBF58476D1CE4E5B9) & _64
        mixed = ((mixed ^ (mixed >> 27)) * 0x94D049BB133111EB) & _64
        yield mixed ^ (mixed >> 31)
