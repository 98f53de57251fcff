"""What a terminal is shown while it waits."""
