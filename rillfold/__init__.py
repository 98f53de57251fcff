"""Rillfold: from a company's events to adapters, and back."""

__version__ = "0.1.0"
