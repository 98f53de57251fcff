"""The tiny base model that training by command starts from."""

from tests.support.training import tiny_base

__all__ = ["tiny_base"]
