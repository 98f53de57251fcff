"""Verbs that write events, or read them back."""
