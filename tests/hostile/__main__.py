"""python -m tests.hostile --each: every line alone on a look of its own, and a line of text for each that does harm."""
