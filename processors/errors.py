"""What a decision may refuse outright."""

from schemas.errors import Poison


class UnusableSchema(Poison):
    """A tool's parameters cannot be checked safely, so the tool cannot be offered."""
