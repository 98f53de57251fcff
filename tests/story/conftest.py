"""The real model in this process, beside another lane."""

from tests.support.threads import one_thread

__all__ = ["one_thread"]
