"""What a decision may refuse outright."""

from schemas.errors import Poison, Retry, Stop


class UnusableSchema(Poison):
    """A tool's parameters cannot be checked safely, so the tool cannot be offered."""


class RuleMissing(Stop):
    """A dataset asks for a rule of an application that is not here, or whose code is another."""


class ModelAway(Retry):
    """A model of others, which words or judges, does not answer, or not in time, or talks nonsense."""
