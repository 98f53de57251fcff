"""Runs of training as trackers of experiments show them: they follow the log, and nothing waits for them."""
