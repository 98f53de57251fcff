"""The event log: its port, memory behind it, and what everybody does with records."""
