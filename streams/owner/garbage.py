"""How often Python looks for cycles."""

import gc

YOUNG_OBJECTS = 200_000
"""Until so many more stand than at the last look, nobody looks. A fold's batches in hand hold fewer."""


def keep_garbage_rare() -> None:
    """A batch is many small objects that all go when it is done. Looking through them for cycles costs a quarter."""
    gc.freeze()
    gc.set_threshold(YOUNG_OBJECTS, 10, 10)
