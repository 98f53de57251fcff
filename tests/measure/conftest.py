"""A tiny base that knows nothing, and a company's rows to measure it on."""

from tests.support.threads import one_thread
from tests.support.training import quick, tiny_base, tiny_chat, tiny_loaded

__all__ = ["one_thread", "quick", "tiny_base", "tiny_chat", "tiny_loaded"]
