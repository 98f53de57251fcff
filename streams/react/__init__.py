"""Reactions of applications: what one emits stands in the log together with how far it has come, or not at all."""
