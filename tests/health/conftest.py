"""A broker that goes away."""

from tests.support.broker import broker

__all__ = ["broker"]
