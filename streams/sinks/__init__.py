"""Read models: followers of the changelogs. The fold does not know them, and waits for none."""
