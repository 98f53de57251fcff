"""The only room that knows torch."""
