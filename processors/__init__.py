"""What to do: pure decisions from (state, event, now, ids) to events."""
