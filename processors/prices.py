"""What tokens cost. Prices are arguments: tokens are reckoned again with another table, and nothing is folded anew."""

from typing import NamedTuple


class Price(NamedTuple):
    """US dollars for a thousand tokens."""

    prompt: float
    cached: float
    completion: float


# An adapter on a machine of one's own, simple tier: assumed until power and hardware are measured.
LOCAL = Price(0.00001, 0.00001, 0.00001)
# The baseline that a saving is told against: a hosted model at 2.50 dollars a million tokens read and 10 written.
EXTERNAL = Price(0.0025, 0.00125, 0.01)


def cost(prompt_tokens: int, cached_tokens: int, completion_tokens: int, price: Price) -> float:
    """Cached tokens are part of the prompt's, at a price of their own."""
    fresh = prompt_tokens - cached_tokens
    return (fresh * price.prompt + cached_tokens * price.cached + completion_tokens * price.completion) / 1000
