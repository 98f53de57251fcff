"""Tiny models with strong adapters, and a workbench for whoever serves them."""

from tests.support.listening import client, url
from tests.support.models import zoo
from tests.support.threads import one_thread
from tests.support.tongues import each_speaker, speakers
from tests.support.workbench import bench

__all__ = ["bench", "client", "each_speaker", "one_thread", "speakers", "url", "zoo"]
