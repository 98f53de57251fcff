"""The HTTP API: produce, query, automate. Everything it does, it does by events."""
