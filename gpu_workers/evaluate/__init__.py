"""How good an adapter is, on requests that it never saw."""
