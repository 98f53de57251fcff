"""Tiny models of each architecture and template, made once."""

from tests.support.threads import one_thread
from tests.support.tongues import Speaker, each_speaker, speakers

__all__ = ["Speaker", "each_speaker", "one_thread", "speakers"]
