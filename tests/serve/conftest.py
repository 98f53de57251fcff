"""Tiny models with strong adapters."""

from tests.support.models import zoo

__all__ = ["zoo"]
