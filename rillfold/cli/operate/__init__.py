"""Verbs that run something: servers, workers, the demo; and what they need."""
