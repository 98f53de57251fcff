"""Whose turn it is where many share a door, a bound or a loop."""
