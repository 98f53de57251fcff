"""Tiny models with strong adapters, and a workbench for whoever serves them."""

from tests.support.listening import client, url
from tests.support.models import zoo
from tests.support.threads import one_thread
from tests.support.workbench import bench

__all__ = ["bench", "client", "one_thread", "url", "zoo"]
