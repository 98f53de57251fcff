"""Verbs from a dataset to an adapter, and to what it answers."""
