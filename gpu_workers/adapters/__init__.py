"""Adapters on disk: kept by content hash, checked before anything is loaded, read as plain matrices."""
