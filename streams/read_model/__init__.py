"""Followers of the changelogs, and reads from what they wrote. The fold does not know them, and waits for none."""
