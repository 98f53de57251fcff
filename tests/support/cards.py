"""A GPU: what needs one says so by a mark, and is skipped where there is none."""

from __future__ import annotations

import pytest


def look(item: pytest.Item) -> None:
    if item.get_closest_marker("gpu") is None:
        return
    import torch  # here alone: most lanes never need it

    if not torch.cuda.is_available():
        pytest.skip("no GPU that torch can use is on this machine")
