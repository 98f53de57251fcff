"""How many processors a test's own arithmetic takes."""

from __future__ import annotations

import pytest
import torch


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> None:
    """Models of these sizes are computed no sooner by two threads, and threads that wait for each other spin.

    In this process alone: a worker has the threads that its settings say.
    """
    torch.set_num_threads(1)
