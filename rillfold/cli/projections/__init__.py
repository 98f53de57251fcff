"""Verbs that ask projections, and prove them."""
