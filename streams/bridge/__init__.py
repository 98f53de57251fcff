"""Calls of companies' tools, out to their APIs and back. Credentials are opened here and nowhere else."""
