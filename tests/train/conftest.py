"""A tiny Qwen3 that learns one company's calls in seconds."""

from tests.cli.conftest import kafka
from tests.support.threads import one_thread
from tests.support.training import quick, tiny_base, tiny_chat, tiny_loaded

__all__ = ["kafka", "one_thread", "quick", "tiny_base", "tiny_chat", "tiny_loaded"]
