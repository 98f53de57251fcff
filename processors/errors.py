"""What a decision may refuse outright."""

from schemas.errors import Poison, Retry


class UnusableSchema(Poison):
    """A tool's parameters cannot be checked safely, so the tool cannot be offered."""


class ModelAway(Retry):
    """A model of others, which words or judges, does not answer, or not in time, or talks nonsense."""
