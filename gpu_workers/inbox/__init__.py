"""Requests between the log and their one outcome, for every worker that takes them from a group."""
