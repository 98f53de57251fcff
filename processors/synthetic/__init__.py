"""Conversations that are made from the descriptions of tools: seeded, checked, and no part of what was observed."""
