"""From a batch of records to rows that are committed: exact, and the order is in `commit`."""
